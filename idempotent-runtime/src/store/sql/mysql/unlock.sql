select cast(coalesce(release_lock(?), 0) as signed)
