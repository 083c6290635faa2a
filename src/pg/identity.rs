//! Whose rights a piece of work has, and locks that nobody else can take.

use pgrx::prelude::*;

use crate::problem::Problem;

/// What work in the name of another role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// What maintenance commands of Postgres allow the owner of a table (ANALYZE, REINDEX, REFRESH MATERIALIZED VIEW): no SET ROLE, no
    /// temporary tables, no cursors or deferred triggers that outlive it.
    Restricted,
    /// As the checks of foreign keys: only SET ROLE and SET SESSION AUTHORIZATION are refused. For statements in which no code of
    /// others runs.
    Local,
}

/// The role whose rights statements have; the one of before comes back when this value is dropped, also while an error unwinds.
struct Identity {
    role: pg_sys::Oid,
    context: i32,
    /// Where work is restricted: what it sets ends with it.
    level: Option<i32>,
}

impl Identity {
    fn assume(role: u32, confinement: Confinement) -> Identity {
        let mut before = Identity {
            role: pg_sys::Oid::INVALID,
            context: 0,
            level: None,
        };
        let flag = match confinement {
            Confinement::Restricted => pg_sys::SECURITY_RESTRICTED_OPERATION,
            Confinement::Local => pg_sys::SECURITY_LOCAL_USERID_CHANGE,
        };
        // SAFETY: both only read and write variables of this backend; what the functions return through the pointers is put back on
        // drop, as in cluster_rel or ri_PerformCheck.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut before.role, &mut before.context);
            pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(role), before.context | flag as i32);
            if confinement == Confinement::Restricted {
                before.level = Some(pg_sys::NewGUCNestLevel());
            }
        }
        before
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // SAFETY: as above. Where an error unwinds, the abort of the (sub)transaction sets the same again, and pops the settings.
        unsafe {
            if let Some(level) = self.level.filter(|_| !std::thread::panicking()) {
                pg_sys::AtEOXact_GUC(false, level);
            }
            pg_sys::SetUserIdAndSecContext(self.role, self.context);
        }
    }
}

/// Runs `work` with the rights of `role` (the oid of a role), whatever the caller's are.
///
/// Errors: those of `work`.
pub fn as_role<T>(
    role: u32,
    confinement: Confinement,
    work: impl FnOnce() -> Result<T, Problem>,
) -> Result<T, Problem> {
    let _identity = Identity::assume(role, confinement);
    work()
}

/// Takes an exclusive lock on a pair of oids until the end of the transaction; false where another session has it and `wait` is not set.
///
/// * `class`: the oid of one of our own state tables: what no SQL command locks, so that no role can hold it but by a call of ours.
///   (An advisory lock is anybody's.)
/// * `object`: the oid of the table that is worked on.
pub fn lock_for_us(class: u32, object: u32, wait: bool) -> bool {
    // SAFETY: the tag is that of SET_LOCKTAG_OBJECT (lock.h), of a database object of this database; LockAcquire copies it. 1 is
    // DEFAULT_LOCKMETHOD.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: class,
            locktag_field3: object,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: 1,
        };
        let mode = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;
        pg_sys::LockAcquire(&tag, mode, false, !wait) != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// Locks a relation as a SELECT does, until the end of the transaction; waits where it must.
pub fn lock_for_reading(relation: u32) {
    // SAFETY: the lock is on the id alone; there may be no such relation any more.
    unsafe {
        pg_sys::LockRelationOid(pg_sys::Oid::from(relation), pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
}

/// Does the transaction keep one snapshot for all of its statements (REPEATABLE READ, SERIALIZABLE)?
pub fn keeps_one_snapshot() -> bool {
    // SAFETY: a plain read of backend state.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// FirstNormalObjectId (transam.h): what has a smaller oid is Postgres's own.
pub(super) const FIRST_OF_USERS: u32 = 16_384;
