-- A write that changes nothing: whether the file may be written to shows only when one does.
delete from {versions} where version < 0
