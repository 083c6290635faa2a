//! jsonb by its text. pgrx's own type reads it into values whose numbers are 64-bit floats, and gives up (with XX000) where it is nested
//! deeply: keys and values of users are neither ours to round nor to refuse.

use std::ffi::{CStr, CString};

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use pgrx::{direct_function_call, direct_function_call_as_datum, pgrx_resolved_type};
use serde_json::Value;

use crate::problem::Problem;

/// A value of type jsonb, as Postgres writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jsonb(pub String);

impl Jsonb {
    /// As typed values, numbers with all of their digits.
    ///
    /// * `name`: of the argument, for the error.
    ///
    /// Errors: 54001 where it is nested more than 127 levels deep.
    pub fn value(&self, name: &str) -> Result<Value, Problem> {
        serde_json::from_str(&self.0).map_err(|error| {
            Problem::new(
                PgSqlErrorCode::ERRCODE_STATEMENT_TOO_COMPLEX,
                format!("{name} cannot be read: {error}"),
            )
            .hint("JSON nested more than 127 levels deep is not accepted")
        })
    }
}

impl From<&Value> for Jsonb {
    fn from(value: &Value) -> Self {
        Jsonb(value.to_string())
    }
}

impl FromDatum for Jsonb {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Jsonb> {
        if is_null {
            return None;
        }
        // SAFETY: the caller's promise: a datum of type jsonb. jsonb_out detoasts it and returns a palloc'd string.
        unsafe {
            let text = direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(datum)])?;
            let owned = text.to_string_lossy().into_owned();
            pg_sys::pfree(text.as_ptr().cast_mut().cast());
            Some(Jsonb(owned))
        }
    }
}

impl IntoDatum for Jsonb {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let text = CString::new(self.0).ok()?;
        // SAFETY: the string is NUL-terminated and outlives the call; jsonb_in reads it whole.
        unsafe { direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text.as_ptr()))]) }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: reads the argument by `FromDatum` above.
unsafe impl<'fcx> ArgAbi<'fcx> for Jsonb {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise. An argument that is NULL is taken as `Option`, and does not come here.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Jsonb("null".into()))
    }
}

// SAFETY: returns the datum of `IntoDatum` above.
unsafe impl BoxRet for Jsonb {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: the caller returns it.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

// SAFETY: `FromDatum` and `IntoDatum` above are of the type that is named here.
unsafe impl SqlTranslatable for Jsonb {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Jsonb);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}
