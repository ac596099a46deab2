select cast(coalesce(max(version), 0) as signed) from {versions}
