-- The roles and the database of a registry. Once, on the primary, as its administrator:
--   psql -X -v ON_ERROR_STOP=1 -f roles.sql
-- None has a password after that, and so none can come in: psql's \password gives them one. README.md says why each.

-- Prism itself: its own tables, and nothing else.
CREATE ROLE prism LOGIN CONNECTION LIMIT 150;
-- Lists, history and audit from a replica (storage.replica.url): reads them.
CREATE ROLE prism_read LOGIN CONNECTION LIMIT 30;
-- The server that follows.
CREATE ROLE prism_replica LOGIN REPLICATION CONNECTION LIMIT 8;

CREATE DATABASE prism TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE prism FROM PUBLIC;
GRANT CONNECT ON DATABASE prism TO prism, prism_read;

\connect prism
REVOKE ALL ON SCHEMA public FROM PUBLIC;
-- Prism makes its tables, changes them with new versions, and adds and drops partitions: they are its own.
CREATE SCHEMA prism AUTHORIZATION prism;
GRANT USAGE ON SCHEMA prism TO prism_read;
ALTER DEFAULT PRIVILEGES FOR ROLE prism IN SCHEMA prism GRANT SELECT ON TABLES TO prism_read;

ALTER ROLE prism IN DATABASE prism SET search_path = prism;
ALTER ROLE prism_read IN DATABASE prism SET search_path = prism;
-- A transaction that is not gone on with keeps its locks no longer than this.
ALTER ROLE prism IN DATABASE prism SET idle_in_transaction_session_timeout = '1min';
ALTER ROLE prism_read IN DATABASE prism SET idle_in_transaction_session_timeout = '1min';
ALTER ROLE prism_read IN DATABASE prism SET default_transaction_read_only = on;
