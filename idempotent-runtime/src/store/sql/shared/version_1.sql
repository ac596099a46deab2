-- The same, in a table of versions that only version 1 has written.
select {int coalesce(max(version), 0)}, {int coalesce(max(version), 0)} from {versions}
