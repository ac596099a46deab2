-- Only the completed record that an operator saw: not one in flight, and not one that was made again since.
delete from {table}
where store_key = {key} and fingerprint = {fingerprint} and attempt = {attempt} and state <> 0 and expires_at > {now}
