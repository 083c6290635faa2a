-- Example: a breeding-management application in the middle of a move to the party model.
--
-- Every client used to be a contact or an organization; now each of those has a row in "Party", and every table that
-- pointed at a contact or organization gets a column that points at the party. Three tenants, deterministic data, and in
-- every table every situation that it can be in: see the comments at the view `cases`.
--
-- Plain SQL; run it in an empty database: psql -f examples/party.sql

CREATE TYPE "PartyKind" AS ENUM ('CONTACT', 'ORGANIZATION');
CREATE TYPE "PlacementState" AS ENUM ('AVAILABLE', 'RESERVED', 'WITH_BUYER');

CREATE TABLE "Tenant" (
  id integer PRIMARY KEY,
  name text NOT NULL
);

CREATE TABLE "Party" (
  id integer PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  kind "PartyKind" NOT NULL,
  "displayName" text NOT NULL
);

CREATE TABLE "Organization" (
  id integer PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  name text NOT NULL,
  "partyId" integer UNIQUE REFERENCES "Party" ON DELETE SET NULL
);

CREATE TABLE "Contact" (
  id integer PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  name text NOT NULL,
  -- Where the contact works; it does not say who the contact is.
  "organizationId" integer REFERENCES "Organization" ON DELETE SET NULL,
  "partyId" integer UNIQUE REFERENCES "Party" ON DELETE SET NULL
);

-- Users belong to tenants by membership only, so their own party cannot be guarded.
CREATE TABLE "User" (
  id text PRIMARY KEY,
  email text NOT NULL UNIQUE,
  "contactId" integer,
  "partyId" integer REFERENCES "Party" ON DELETE SET NULL
);
CREATE TABLE "TenantMembership" (
  "userId" text NOT NULL REFERENCES "User" ON DELETE CASCADE,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  PRIMARY KEY ("userId", "tenantId")
);

CREATE TABLE "Animal" (
  id integer PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  name text NOT NULL,
  "createdBy" text NOT NULL REFERENCES "User",
  "buyerContactId" integer,
  "buyerOrganizationId" integer,
  "buyerPartyId" integer REFERENCES "Party" ON DELETE SET NULL
);

CREATE TABLE "WaitlistEntry" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  "contactId" integer,
  "organizationId" integer,
  "clientPartyId" integer REFERENCES "Party" ON DELETE SET NULL,
  status text NOT NULL DEFAULT 'OPEN',
  CONSTRAINT "WaitlistEntry_cancelled_has_no_client" CHECK (status <> 'CANCELLED' OR "clientPartyId" IS NULL)
);

-- No tenant of its own: it is the animal's.
CREATE TABLE "AnimalOwner" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "animalId" integer NOT NULL REFERENCES "Animal" ON DELETE CASCADE,
  "contactId" integer,
  "organizationId" integer,
  "partyId" integer REFERENCES "Party" ON DELETE SET NULL,
  percent integer NOT NULL DEFAULT 100,
  CONSTRAINT "AnimalOwner_animalId_partyId_key" UNIQUE ("animalId", "partyId"),
  CONSTRAINT "AnimalOwner_percent_of_an_owner" CHECK ("partyId" IS NULL OR percent BETWEEN 1 AND 100)
);

CREATE TABLE "BreedingAttempt" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  "studId" integer REFERENCES "Animal" ON DELETE SET NULL,
  "studOwnerContactId" integer,
  "studOwnerPartyId" integer REFERENCES "Party" ON DELETE SET NULL,
  CONSTRAINT "BreedingAttempt_owner_needs_stud" CHECK ("studOwnerPartyId" IS NULL OR "studId" IS NOT NULL)
);

CREATE TABLE "Offspring" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  "placementState" "PlacementState" NOT NULL DEFAULT 'WITH_BUYER',
  "buyerContactId" integer,
  "buyerOrganizationId" integer,
  "buyerPartyId" integer REFERENCES "Party" ON DELETE SET NULL,
  CONSTRAINT "Offspring_available_has_no_buyer" CHECK ("placementState" <> 'AVAILABLE' OR "buyerPartyId" IS NULL)
);

CREATE TABLE "Invoice" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  "contactId" integer,
  "organizationId" integer,
  "clientPartyId" integer REFERENCES "Party" ON DELETE SET NULL,
  "amountCents" integer NOT NULL,
  CONSTRAINT "Invoice_client_pays_something" CHECK ("clientPartyId" IS NULL OR "amountCents" > 0)
);

CREATE TABLE "Contract" (
  id integer PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE
);
CREATE TABLE "ContractParty" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "contractId" integer NOT NULL REFERENCES "Contract" ON DELETE CASCADE,
  "userId" text,
  "contactId" integer,
  "organizationId" integer,
  "partyId" integer REFERENCES "Party" ON DELETE SET NULL,
  role text NOT NULL DEFAULT 'SIGNER',
  CONSTRAINT "ContractParty_witness_is_no_party" CHECK (role <> 'WITNESS' OR "partyId" IS NULL),
  CONSTRAINT "ContractParty_contractId_partyId_key" UNIQUE ("contractId", "partyId")
);

CREATE TABLE "Plan" (
  id integer PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE
);
CREATE TABLE "PlanParty" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "planId" integer NOT NULL REFERENCES "Plan" ON DELETE CASCADE,
  "contactId" integer,
  "organizationId" integer,
  "partyId" integer REFERENCES "Party" ON DELETE SET NULL,
  archived boolean NOT NULL DEFAULT false,
  CONSTRAINT "PlanParty_archived_has_no_party" CHECK (NOT archived OR "partyId" IS NULL)
);
CREATE UNIQUE INDEX "PlanParty_one_active" ON "PlanParty" ("planId", "partyId") WHERE NOT archived;

CREATE TABLE "Tag" (
  id integer PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE
);
CREATE TABLE "TagAssignment" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "tagId" integer NOT NULL REFERENCES "Tag" ON DELETE CASCADE,
  "contactId" integer,
  "organizationId" integer,
  "taggedPartyId" integer REFERENCES "Party" ON DELETE SET NULL,
  "expiredOn" date,
  CONSTRAINT "TagAssignment_expired" CHECK ("expiredOn" IS NULL OR "taggedPartyId" IS NULL),
  CONSTRAINT "TagAssignment_tagId_taggedPartyId_key" UNIQUE ("tagId", "taggedPartyId")
);

CREATE TABLE "OffspringGroup" (
  id integer PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE
);
CREATE TABLE "OffspringGroupBuyer" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "groupId" integer NOT NULL REFERENCES "OffspringGroup" ON DELETE CASCADE,
  "contactId" integer,
  "organizationId" integer,
  "buyerPartyId" integer REFERENCES "Party" ON DELETE SET NULL,
  rank integer NOT NULL DEFAULT 1,
  CONSTRAINT "OffspringGroupBuyer_rank" CHECK ("buyerPartyId" IS NULL OR rank > 0),
  CONSTRAINT "OffspringGroupBuyer_groupId_buyerPartyId_key" UNIQUE ("groupId", "buyerPartyId")
);

CREATE TABLE "OffspringContract" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  "buyerContactId" integer,
  "buyerOrganizationId" integer,
  "buyerPartyId" integer REFERENCES "Party" ON DELETE SET NULL,
  voided boolean NOT NULL DEFAULT false,
  CONSTRAINT "OffspringContract_voided_has_no_buyer" CHECK (NOT voided OR "buyerPartyId" IS NULL)
);

-- Its legacy columns are gone already: nothing is left to fill it from.
CREATE TABLE "Message" (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "tenantId" integer NOT NULL REFERENCES "Tenant" ON DELETE CASCADE,
  "senderPartyId" integer REFERENCES "Party" ON DELETE SET NULL,
  body text NOT NULL
);

INSERT INTO "Tenant" SELECT t, 'Kennel ' || t FROM generate_series(1, 3) t;

-- Ids are tenant + 3 * (n - 1): contact n of tenant t, organization n of tenant t.
INSERT INTO "Party"
SELECT t + 3 * (n - 1), t, 'CONTACT'::"PartyKind", 'Contact ' || n || ' of kennel ' || t
FROM generate_series(1, 3) t, generate_series(1, 8) n
UNION ALL
SELECT 100 + t + 3 * (n - 1), t, 'ORGANIZATION', 'Organization ' || n || ' of kennel ' || t
FROM generate_series(1, 3) t, generate_series(1, 2) n
UNION ALL
SELECT 200 + t, t % 3 + 1, 'CONTACT', 'Somebody of kennel ' || t % 3 + 1 FROM generate_series(1, 3) t;

-- Organization 3 shares its party with contact 8 (a sole trader); organization 4 has none yet.
INSERT INTO "Organization"
SELECT t + 3 * (n - 1), t, 'Organization ' || n,
       CASE WHEN n <= 2 THEN 100 + t + 3 * (n - 1) WHEN n = 3 THEN t + 3 * 7 END
FROM generate_series(1, 3) t, generate_series(1, 4) n;

-- Contact 9 has no party yet, contact 10 the party of another tenant.
INSERT INTO "Contact"
SELECT t + 3 * (n - 1), t, 'Contact ' || n, CASE WHEN n % 2 = 0 THEN t END,
       CASE WHEN n <= 8 THEN t + 3 * (n - 1) WHEN n = 10 THEN 200 + t END
FROM generate_series(1, 3) t, generate_series(1, 10) n;

INSERT INTO "User"
SELECT 'user_' || t || '_' || kind, kind || t || '@example.com', contact, party
FROM generate_series(1, 3) t,
     LATERAL (VALUES ('linked', t, NULL), ('linked_too', t + 3 * 6, NULL), ('deleted_contact', 9000 + t, NULL),
                     ('no_party_yet', t + 3 * 8, NULL), ('no_contact', NULL, NULL), ('done', t + 3, t + 3))
       AS v(kind, contact, party);
INSERT INTO "TenantMembership"
SELECT id, split_part(id, '_', 2)::integer FROM "User";

INSERT INTO "Contract" SELECT t, t FROM generate_series(1, 3) t;
INSERT INTO "Plan" SELECT t, t FROM generate_series(1, 3) t;
INSERT INTO "Tag" SELECT t, t FROM generate_series(1, 3) t;
INSERT INTO "OffspringGroup" SELECT t, t FROM generate_series(1, 3) t;

-- One row per situation and tenant; every table takes those that it can be in.
CREATE TEMPORARY VIEW cases AS
SELECT t AS tenant, v.*
FROM generate_series(1, 3) t,
     LATERAL (VALUES
       ('contact only',              t,              NULL::integer,  NULL::integer),
       ('organization only',         NULL,           t,              NULL),
       ('both, agreeing',            t + 3 * 7,      t + 3 * 2,      NULL),
       ('both, disagreeing',         t + 3,          t + 3,          NULL),
       ('contact deleted',           9000 + t,       NULL,           NULL),
       ('deleted, but organization', 9100 + t,       t + 3,          NULL),
       ('contact without a party',   t + 3 * 8,      NULL,           NULL),
       ('organization without one',  NULL,           t + 3 * 3,      NULL),
       ('another tenant''s party',   t + 3 * 9,      NULL,           NULL),
       ('set to another party',      t + 3 * 2,      NULL,           t + 3 * 3),
       ('nothing set',               NULL,           NULL,           NULL),
       ('refused by a CHECK',        t + 3 * 4,      NULL,           NULL),
       ('twice, once',               t + 3 * 5,      NULL,           NULL),
       ('twice, again',              t + 3 * 5,      NULL,           NULL),
       ('taken already',             t + 3 * 3,      NULL,           NULL),
       ('one more contact',          t + 3 * 6,      NULL,           NULL)
     ) AS v(situation, contact, organization, party);

INSERT INTO "Animal"
SELECT row_number() OVER (ORDER BY situation, tenant), tenant, situation, 'user_' || tenant || '_linked',
       contact, organization, party
FROM cases;

INSERT INTO "WaitlistEntry" ("tenantId", "contactId", "organizationId", "clientPartyId", status)
SELECT tenant, contact, organization, party, CASE WHEN situation ~ 'CHECK' THEN 'CANCELLED' ELSE 'OPEN' END FROM cases;

INSERT INTO "AnimalOwner" ("animalId", "contactId", "organizationId", "partyId", percent)
SELECT (SELECT min(a.id) FROM "Animal" a WHERE a."tenantId" = tenant), contact, organization, party,
       CASE WHEN situation ~ 'CHECK' THEN 0 ELSE 50 END FROM cases;

INSERT INTO "BreedingAttempt" ("tenantId", "studId", "studOwnerContactId", "studOwnerPartyId")
SELECT tenant, CASE WHEN situation !~ 'CHECK' THEN (SELECT min(a.id) FROM "Animal" a WHERE a."tenantId" = tenant) END,
       contact, party FROM cases WHERE organization IS NULL;

INSERT INTO "Offspring" ("tenantId", "placementState", "buyerContactId", "buyerOrganizationId", "buyerPartyId")
SELECT tenant, CASE WHEN situation ~ 'CHECK' THEN 'AVAILABLE'::"PlacementState" ELSE 'WITH_BUYER' END,
       contact, organization, party FROM cases;

INSERT INTO "Invoice" ("tenantId", "contactId", "organizationId", "clientPartyId", "amountCents")
SELECT tenant, contact, organization, party, CASE WHEN situation ~ 'CHECK' THEN 0 ELSE 12500 END FROM cases;

INSERT INTO "ContractParty" ("contractId", "userId", "contactId", "organizationId", "partyId", role)
SELECT tenant,
       CASE situation
         WHEN 'contact only' THEN 'user_' || tenant || '_linked'
         WHEN 'nothing set' THEN 'user_' || tenant || '_linked_too'
         WHEN 'one more contact' THEN 'user_' || tenant || '_no_contact'
         WHEN 'both, disagreeing' THEN 'user_' || tenant || '_done'
         WHEN 'contact deleted' THEN 'user_' || tenant || '_gone'
       END,
       contact, organization, party, CASE WHEN situation ~ 'CHECK' THEN 'WITNESS' ELSE 'SIGNER' END
FROM cases
UNION ALL
SELECT tenant, NULL, NULL, NULL, NULL, 'SIGNER' FROM generate_series(1, 3) tenant;

INSERT INTO "PlanParty" ("planId", "contactId", "organizationId", "partyId", archived)
SELECT tenant, contact, organization, party, situation ~ 'CHECK' FROM cases;

INSERT INTO "TagAssignment" ("tagId", "contactId", "organizationId", "taggedPartyId", "expiredOn")
SELECT tenant, contact, organization, party, CASE WHEN situation ~ 'CHECK' THEN date '2024-01-31' END FROM cases;

INSERT INTO "OffspringGroupBuyer" ("groupId", "contactId", "organizationId", "buyerPartyId", rank)
SELECT tenant, contact, organization, party, CASE WHEN situation ~ 'CHECK' THEN 0 ELSE 1 END FROM cases;

INSERT INTO "OffspringContract" ("tenantId", "buyerContactId", "buyerOrganizationId", "buyerPartyId", voided)
SELECT tenant, contact, organization, party, situation ~ 'CHECK' FROM cases;

INSERT INTO "Message" ("tenantId", "senderPartyId", body)
SELECT t, CASE WHEN n = 1 THEN t END, 'Hello' FROM generate_series(1, 3) t, generate_series(1, 2) n;

DROP VIEW cases;

-- The legacy columns got their foreign keys late; old rows were never checked (NOT VALID), and some dangle.
DO $$
DECLARE
  legacy record;
BEGIN
  FOR legacy IN
    SELECT c.oid::regclass AS child, a.attname AS column_name,
           CASE WHEN a.attname ~* 'contactId$' THEN '"Contact"' WHEN a.attname ~* 'organizationId$' THEN '"Organization"'
                ELSE '"User"' END AS parent
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname ~* '(contactId|organizationId|userId)$' AND NOT a.attisdropped
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
      AND c.relname NOT IN ('Contact', 'TenantMembership')
    ORDER BY 1, 2
  LOOP
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%I) REFERENCES %s ON DELETE SET NULL NOT VALID',
                   legacy.child, trim(both '"' from legacy.child::text) || '_' || legacy.column_name || '_fkey',
                   legacy.column_name, legacy.parent);
  END LOOP;
END
$$;

ANALYZE;
