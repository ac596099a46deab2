-- What an operator cannot accept of a server and session.
select pg_is_in_recovery(), current_setting('transaction_isolation') = 'read committed'
