-- Migration 006: the integration with Ascora.
-- Run with psql -f: each statement by itself, so that one that fails leaves those in front of it behind.

CREATE TABLE IF NOT EXISTS ascora_integrations (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
  user_id text NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  api_url text NOT NULL DEFAULT 'https://api.ascora.example/v1',
  api_token_encrypted text NOT NULL,
  is_active boolean NOT NULL DEFAULT true,
  sync_settings jsonb NOT NULL DEFAULT '{"jobs": true, "invoices": true}'::jsonb,
  last_sync_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT ascora_integrations_organization_key UNIQUE (organization_id)
);

CREATE TABLE IF NOT EXISTS ascora_customers (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
  ascora_customer_id varchar(100) NOT NULL,
  company_name text,
  email text,
  is_synced boolean DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT ascora_customers_key UNIQUE (organization_id, ascora_customer_id)
);

CREATE TABLE IF NOT EXISTS ascora_jobs (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
  report_id uuid REFERENCES reports (report_id) ON DELETE SET NULL,
  customer_id uuid REFERENCES ascora_customers (id) ON DELETE SET NULL,
  ascora_job_id varchar(100) NOT NULL,
  job_status varchar(50) NOT NULL DEFAULT 'pending' CHECK (job_status IN ('pending', 'scheduled', 'done', 'cancelled')),
  amount numeric(12, 2) CHECK (amount >= 0),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT ascora_jobs_key UNIQUE (organization_id, ascora_job_id)
);

CREATE TABLE IF NOT EXISTS ascora_invoices (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
  job_id uuid NOT NULL REFERENCES ascora_jobs (id) ON DELETE CASCADE,
  invoice_number varchar(50) NOT NULL,
  total numeric(12, 2) NOT NULL DEFAULT 0,
  due_on date,
  paid_at timestamptz
);

CREATE TABLE IF NOT EXISTS ascora_sync_logs (
  id bigserial PRIMARY KEY,
  integration_id uuid NOT NULL REFERENCES ascora_integrations (id) ON DELETE CASCADE,
  sync_type varchar(30) NOT NULL,
  records integer NOT NULL DEFAULT 0,
  error_message text,
  started_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS ascora_sync_schedules (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  integration_id uuid NOT NULL REFERENCES ascora_integrations (id) ON DELETE CASCADE,
  every interval NOT NULL DEFAULT interval '15 minutes',
  next_run_at timestamptz
);

CREATE INDEX idx_ascora_org ON ascora_integrations (organization_id);
CREATE INDEX idx_ascora_jobs_status ON ascora_jobs (organization_id, job_status) WHERE job_status <> 'done';
CREATE INDEX idx_ascora_invoices_open ON ascora_invoices (due_on DESC) WHERE paid_at IS NULL;
CREATE INDEX idx_ascora_logs ON ascora_sync_logs (integration_id, started_at DESC);

CREATE FUNCTION update_ascora_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at = now();
  RETURN NEW;
END
$$;

CREATE TRIGGER ascora_integrations_updated_at BEFORE UPDATE ON ascora_integrations
  FOR EACH ROW EXECUTE FUNCTION update_ascora_updated_at();
CREATE TRIGGER ascora_jobs_updated_at BEFORE UPDATE ON ascora_jobs
  FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION update_ascora_updated_at();

ALTER TABLE ascora_integrations ENABLE ROW LEVEL SECURITY;
ALTER TABLE ascora_jobs ENABLE ROW LEVEL SECURITY;

CREATE POLICY ascora_jobs_of_organization ON ascora_jobs
  USING (organization_id = nullif(current_setting('app.organization_id', true), '')::uuid);

COMMENT ON TABLE ascora_jobs IS 'jobs as Ascora knows them';
