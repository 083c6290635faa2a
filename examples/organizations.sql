-- A support platform in the middle of its move from customers to organizations: the tenant is organization_id, most rows
-- do not have it yet, and every table knows it by another way. Small enough to read, and every situation in it.

CREATE TABLE organizations (
  id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name text NOT NULL UNIQUE
);

CREATE TABLE profiles (
  id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  display_name text NOT NULL
);

CREATE TABLE organization_members (
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  profile_id      uuid NOT NULL REFERENCES profiles ON DELETE CASCADE,
  role            text NOT NULL DEFAULT 'member',
  PRIMARY KEY (organization_id, profile_id)
);

-- Everybody's: no way leads from here to an organization.
CREATE TABLE languages (
  code text PRIMARY KEY,
  name text NOT NULL
);

CREATE TABLE domains (
  id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  domain          text NOT NULL UNIQUE,
  language        text REFERENCES languages
);
CREATE INDEX ON domains (organization_id);

-- The name says customer; it is the configuration of a domain.
CREATE TABLE customer_configs (
  id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  domain_id       uuid NOT NULL REFERENCES domains ON DELETE CASCADE,
  organization_id uuid REFERENCES organizations,
  greeting        text
);

CREATE TABLE conversations (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  domain_id       uuid REFERENCES domains,
  organization_id uuid REFERENCES organizations,
  customer_id     uuid,                             -- legacy: no foreign key, NULL in every row
  metadata        jsonb,                            -- NULL in every row as well, but a view reads it
  started_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON conversations (organization_id);

CREATE TABLE messages (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  conversation_id bigint NOT NULL REFERENCES conversations ON DELETE CASCADE,
  reply_to        bigint REFERENCES messages,
  organization_id uuid REFERENCES organizations,
  body            text NOT NULL
);

CREATE TABLE scraped_pages (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  domain_id       uuid NOT NULL REFERENCES domains ON DELETE CASCADE,
  organization_id uuid REFERENCES organizations,
  url             text NOT NULL UNIQUE
);

-- Two ways to the organization, by the page and by the configuration that embedded it; for some rows they disagree.
CREATE TABLE page_embeddings (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  page_id         bigint NOT NULL REFERENCES scraped_pages ON DELETE CASCADE,
  config_id       uuid REFERENCES customer_configs,
  organization_id uuid REFERENCES organizations,
  chunk           text NOT NULL
);

-- No foreign key on the domain any more: somebody dropped it to load faster.
CREATE TABLE structured_extractions (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  domain_id       uuid NOT NULL,
  organization_id uuid,
  extracted       jsonb NOT NULL
);

-- Not given the column yet.
CREATE TABLE website_content (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  page_id bigint NOT NULL REFERENCES scraped_pages ON DELETE CASCADE,
  html    text NOT NULL
);

-- What stands on top: a view and a policy that already rely on organization_id.
CREATE VIEW conversation_overview AS
SELECT c.organization_id, c.id, c.metadata, count(m.id) AS messages
FROM conversations c
LEFT JOIN messages m ON m.conversation_id = c.id
GROUP BY c.id;

ALTER TABLE conversations ENABLE ROW LEVEL SECURITY;
CREATE POLICY org_isolation ON conversations
  USING (organization_id IN (SELECT m.organization_id FROM organization_members m
                             WHERE m.profile_id = nullif(current_setting('app.profile_id', true), '')::uuid));

-- Keys that can be read: tenant 1 is ...0001, its domains ...0011 and so on.
CREATE FUNCTION pg_temp.key(kind int, number int) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$ SELECT ('00000000-0000-0000-' || lpad(kind::text, 4, '0') || '-' || lpad(number::text, 12, '0'))::uuid $$;

INSERT INTO organizations SELECT pg_temp.key(1, n), name FROM (VALUES (1, 'Acme'), (2, 'Bolt'), (3, 'Core')) v(n, name);
INSERT INTO profiles SELECT pg_temp.key(2, n), 'person ' || n FROM generate_series(1, 6) n;
INSERT INTO organization_members SELECT pg_temp.key(1, 1 + n % 3), pg_temp.key(2, n) FROM generate_series(1, 6) n;
INSERT INTO languages VALUES ('en', 'English'), ('de', 'German');
INSERT INTO domains
SELECT pg_temp.key(3, n), pg_temp.key(1, 1 + n % 3), 'site-' || n || '.example', CASE n % 2 WHEN 0 THEN 'en' ELSE 'de' END
FROM generate_series(1, 6) n;
INSERT INTO customer_configs SELECT pg_temp.key(4, n), pg_temp.key(3, n), NULL, 'Hello' FROM generate_series(1, 6) n;

-- 60 conversations: 6 without a domain, 5 filled by the application already.
INSERT INTO conversations (domain_id, organization_id)
SELECT CASE WHEN n % 10 <> 0 THEN pg_temp.key(3, 1 + n % 6) END,
       CASE WHEN n % 12 = 1 THEN pg_temp.key(1, 1 + (1 + n % 6) % 3) END
FROM generate_series(1, 60) n;
INSERT INTO messages (conversation_id, reply_to, body)
SELECT 1 + (n - 1) % 60, CASE WHEN n > 60 AND n % 4 = 0 THEN n - 60 END, 'message ' || n FROM generate_series(1, 180) n;
INSERT INTO scraped_pages (domain_id, url)
SELECT pg_temp.key(3, 1 + n % 6), 'https://site-' || (1 + n % 6) || '.example/' || n FROM generate_series(1, 48) n;
-- 240 embeddings; every 20th was made with the configuration of another organization's domain.
INSERT INTO page_embeddings (page_id, config_id, chunk)
SELECT p.id, pg_temp.key(4, CASE WHEN n % 20 = 0 THEN 1 + (1 + p.id::int) % 6 ELSE 1 + p.id::int % 6 END), 'chunk ' || n
FROM generate_series(1, 240) n JOIN scraped_pages p ON p.id = 1 + (n - 1) % 48;
-- Filled by a script that took the wrong organization for three of them: 100 % filled, and wrong.
INSERT INTO structured_extractions (domain_id, organization_id, extracted)
SELECT pg_temp.key(3, 1 + n % 6), pg_temp.key(1, CASE WHEN n IN (4, 8, 15) THEN 1 + (2 + n % 6) % 3 ELSE 1 + (1 + n % 6) % 3 END), '{}'
FROM generate_series(1, 30) n;
INSERT INTO website_content (page_id, html) SELECT 1 + n % 48, '<p>' FROM generate_series(1, 12) n;
ANALYZE;
