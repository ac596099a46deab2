-- A write that changes nothing: only a write shows whether the file may be written to.
delete from {versions} where version < 0
