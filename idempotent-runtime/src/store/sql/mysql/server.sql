-- The settings of the server and session that the store needs. All servers have them.
select
    cast(@@global.max_allowed_packet as signed),
    cast(cast(@@global.read_only as char) in ('1', 'ON') as signed),
    cast(@@session.autocommit as signed)
