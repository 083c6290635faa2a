-- Orders carry an address; properties are to be created from them, one for each organisation and address, and every order linked.
-- An older table names its organisation created_by, a newer one org_id; both mean a profile.

CREATE TABLE profiles (
  id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name text NOT NULL
);

CREATE TABLE properties (
  id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  org_id      uuid NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
  addr_key    text NOT NULL,
  line1       text,
  city        text,
  state       text CHECK (state ~ '^[A-Z]{2}$'),
  postal_code text CHECK (postal_code ~ '^[0-9]{5}$'),
  props       jsonb NOT NULL DEFAULT '{}',
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, addr_key)
);

CREATE TABLE orders (
  id          integer PRIMARY KEY,
  created_by  uuid NOT NULL REFERENCES profiles (id),
  address     text,
  city        text,
  state       text,
  postal_code text,
  property_id uuid REFERENCES properties (id) ON DELETE SET NULL
);

CREATE TABLE agent_runs (
  id     integer PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES profiles (id)
);

CREATE TABLE agent_settings (
  org_id uuid PRIMARY KEY REFERENCES profiles (id)
);

CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

CREATE TRIGGER properties_updated_at BEFORE UPDATE ON properties
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

INSERT INTO profiles VALUES
  ('00000000-0000-0000-0000-000000000001', 'Atlas Appraisals'),
  ('00000000-0000-0000-0000-000000000002', 'Birch Valuation'),
  ('00000000-0000-0000-0000-000000000003', 'Cedar Homes');

-- One property of Atlas is there already, with what somebody noted about it.
INSERT INTO properties (id, org_id, addr_key, line1, city, state, postal_code, props) VALUES
  ('00000000-0000-0000-0001-000000000001', '00000000-0000-0000-0000-000000000001', '1 oak street', '1 Oak Street', 'Austin', 'TX', '78701',
   '{"note": "dog in the yard"}');

-- 120 orders at 20 addresses, typed as people type; the same address in two organisations is two properties.
INSERT INTO orders (id, created_by, address, city, state, postal_code)
SELECT n,
       ('00000000-0000-0000-0000-00000000000' || 1 + n % 3)::uuid,
       CASE n % 4 WHEN 0 THEN a || ' Oak Street' WHEN 1 THEN a || ' oak  street' WHEN 2 THEN ' ' || a || ' OAK STREET' ELSE a || ' Oak Street ' END,
       'Austin', 'TX', '78701'
FROM (SELECT n, 1 + n / 6 AS a FROM generate_series(0, 119) AS n) AS orders;

-- What goes wrong in real data: no address, an empty one, two cities for one address, a state and a postal code that are none.
UPDATE orders SET address = NULL WHERE id = 7;
UPDATE orders SET address = '  ' WHERE id = 8;
UPDATE orders SET city = 'Dallas' WHERE id = 12;
UPDATE orders SET state = 'Texas' WHERE id IN (18, 21);
UPDATE orders SET postal_code = 'n/a' WHERE id IN (25, 28);
