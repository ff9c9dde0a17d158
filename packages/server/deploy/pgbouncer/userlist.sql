-- Lines of pgbouncer's auth_file: the names of Prism's roles and the digests by which PostgreSQL knows their passwords.
SELECT format('"%s" "%s"', rolname, rolpassword) FROM pg_authid
WHERE rolname IN ('prism', 'prism_read') AND rolpassword LIKE 'SCRAM-SHA-256$%' ORDER BY rolname;
