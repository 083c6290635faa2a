-- Example: a database before and after a migration that failed once.
--
-- A reporting application for restoration companies is to be connected with Ascora, a job management service. The migration
-- (examples/migrations/006_ascora_integration.sql) makes six tables that reference organizations, users and reports. This database has
-- users and reports, but no organizations: somebody forgot to run the migration that makes them, or there never was one.
--
-- Plain SQL; run it in an empty database: psql -f examples/ascora.sql

CREATE TABLE users (
  user_id text PRIMARY KEY,
  email text NOT NULL UNIQUE,
  role text NOT NULL DEFAULT 'user'
);

CREATE TABLE reports (
  report_id uuid PRIMARY KEY,
  user_id text NOT NULL REFERENCES users,
  title text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO users
SELECT 'user_' || n, 'user' || n || '@example.com', CASE WHEN n = 1 THEN 'admin' ELSE 'user' END FROM generate_series(1, 5) n;

INSERT INTO reports
SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'user_' || (1 + n % 5), 'Water damage ' || n, timestamptz '2025-10-01 09:00+00' + n * interval '1 hour'
FROM generate_series(1, 20) n;

ANALYZE;
