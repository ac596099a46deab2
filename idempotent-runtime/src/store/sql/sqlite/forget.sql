-- The table is gone, so that what was done to it is to be done again.
delete from {versions}
