//! Parse tree → domains, composite types, sequences.

use pgrx::pg_sys::{self, ConstrType, NodeTag};

use super::ast::{Action, DomainDefinition, SequenceOption, SequenceSetting, SequenceValue};
use super::decode_table::collate;
use super::tree::{expression, is, name_of, nodes, number, range, string, texts, truth, type_name};

/// # Safety
/// `node` points at a CompositeTypeStmt.
pub(super) unsafe fn composite(node: *mut pg_sys::CompositeTypeStmt) -> Vec<Action> {
    // SAFETY: the caller's promise; attributes are ColumnDef nodes.
    unsafe {
        let create = &*node;
        let attributes = nodes(create.coldeflist).into_iter().map(|node| {
            let attribute = &*node.cast::<pg_sys::ColumnDef>();
            (
                string(attribute.colname).unwrap_or_default(),
                type_name(attribute.typeName),
                collate(attribute.collClause),
            )
        });
        vec![Action::CreateComposite {
            name: range(create.typevar),
            attributes: attributes.collect(),
        }]
    }
}

/// # Safety
/// `node` points at a CreateDomainStmt.
pub(super) unsafe fn domain(node: *mut pg_sys::CreateDomainStmt) -> Vec<Action> {
    // SAFETY: the caller's promise; constraints are Constraint nodes.
    unsafe {
        let create = &*node;
        let mut found = DomainDefinition {
            base: type_name(create.typeName),
            collation: collate(create.collClause),
            not_null: false,
            default: None,
            checks: vec![],
        };
        for node in nodes(create.constraints) {
            if !is(node, NodeTag::T_Constraint) {
                continue;
            }
            let one = &*node.cast::<pg_sys::Constraint>();
            match one.contype {
                ConstrType::CONSTR_NOTNULL => found.not_null = true,
                ConstrType::CONSTR_DEFAULT => found.default = expression(one.raw_expr),
                ConstrType::CONSTR_CHECK => found.checks.extend(expression(one.raw_expr)),
                _ => {}
            }
        }
        vec![Action::CreateDomain {
            name: name_of(&texts(create.domainname)),
            domain: found,
        }]
    }
}

/// # Safety
/// `node` points at a CreateSeqStmt.
pub(super) unsafe fn create_sequence(node: *mut pg_sys::CreateSeqStmt) -> Vec<Action> {
    // SAFETY: the caller's promise.
    unsafe {
        let create = &*node;
        vec![Action::CreateSequence {
            name: range(create.sequence),
            if_not_exists: create.if_not_exists,
            options: options(create.options).0,
        }]
    }
}

/// # Safety
/// `node` points at an AlterSeqStmt.
pub(super) unsafe fn alter_sequence(node: *mut pg_sys::AlterSeqStmt) -> Vec<Action> {
    // SAFETY: the caller's promise.
    unsafe {
        let alter = &*node;
        let (options, restarts) = options(alter.options);
        vec![Action::AlterSequence {
            name: range(alter.sequence),
            options,
            restarts,
        }]
    }
}

/// Options of a sequence, and whether RESTART is one.
///
/// # Safety
/// As [`nodes`]: a list of DefElem nodes.
unsafe fn options(list: *mut pg_sys::List) -> (Vec<SequenceSetting>, bool) {
    // SAFETY: tags are checked before casts.
    unsafe {
        let mut found = Vec::new();
        let mut restarts = false;
        for node in nodes(list) {
            let option = &*node.cast::<pg_sys::DefElem>();
            let argument = option.arg;
            found.push(match string(option.defname).unwrap_or_default().as_str() {
                "as" if is(argument, NodeTag::T_TypeName) => {
                    let name = texts((*argument.cast::<pg_sys::TypeName>()).names).pop();
                    (SequenceOption::Type, name.map(SequenceValue::Type))
                }
                "increment" => (SequenceOption::Increment, number(argument).map(SequenceValue::Number)),
                "minvalue" => (SequenceOption::Minimum, number(argument).map(SequenceValue::Number)),
                "maxvalue" => (SequenceOption::Maximum, number(argument).map(SequenceValue::Number)),
                "start" => (SequenceOption::Start, number(argument).map(SequenceValue::Number)),
                "cache" => (SequenceOption::Cache, number(argument).map(SequenceValue::Number)),
                "cycle" => (SequenceOption::Cycle, Some(SequenceValue::Yes(truth(argument)))),
                "owned_by" => {
                    let names = match is(argument, NodeTag::T_List) {
                        true => texts(argument.cast()),
                        false => vec![],
                    };
                    (SequenceOption::Owner, Some(SequenceValue::Column(names)))
                }
                "restart" => {
                    restarts = true;
                    continue;
                }
                _ => continue,
            });
        }
        (found, restarts)
    }
}
