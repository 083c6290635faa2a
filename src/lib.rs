//! pg_mend: backfill, validate and repair multi-tenant data, inside Postgres.
::pgrx::pg_module_magic!(name, version);
