delete from {table}
where {held}
