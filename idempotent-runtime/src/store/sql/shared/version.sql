-- The version of the table, and the oldest version of this crate that works with it. Rows of version 1 do not say.
select
    {int coalesce(max(coalesce(schema_version, version)), 0)},
    {int coalesce(max(coalesce(min_reader, version)), 0)}
from {versions}
