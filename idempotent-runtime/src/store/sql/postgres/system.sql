-- Identifies the cluster of databases and its physical replicas.
select system_identifier::text from pg_control_system()
