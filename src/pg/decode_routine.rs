//! Parse tree → functions, triggers, policies.

use pgrx::pg_sys::{self, NodeTag};

use super::tree::{expression, is, name_of, nodes, range, roles, string, text_of, texts, truth, type_name};
use crate::script::ast::{Action, FunctionDefinition, PolicyDefinition, TriggerDefinition};

/// # Safety
/// `node` points at a CreateFunctionStmt.
pub(super) unsafe fn function(node: *mut pg_sys::CreateFunctionStmt) -> Vec<Action> {
    // SAFETY: tags are checked before casts.
    unsafe {
        let create = &*node;
        let mut arguments = Vec::new();
        let mut outputs = false;
        let mut table = false;
        for parameter in nodes(create.parameters) {
            let parameter = &*parameter.cast::<pg_sys::FunctionParameter>();
            match parameter.mode {
                pg_sys::FunctionParameterMode::FUNC_PARAM_OUT => {
                    outputs = true;
                    // What tells procedures apart since 14.
                    if create.is_procedure && cfg!(not(feature = "pg13")) {
                        arguments.push(type_name(parameter.argType));
                    }
                }
                pg_sys::FunctionParameterMode::FUNC_PARAM_TABLE => table = true,
                pg_sys::FunctionParameterMode::FUNC_PARAM_INOUT => {
                    outputs = true;
                    arguments.push(type_name(parameter.argType));
                }
                _ => arguments.push(type_name(parameter.argType)),
            }
        }
        let written = !create.returnType.is_null();
        let mut found = FunctionDefinition {
            name: name_of(&texts(create.funcname)),
            procedure: create.is_procedure,
            replace: create.replace,
            arguments,
            returns: (written && !table && !outputs).then(|| type_name(create.returnType)),
            set: table || written && (*create.returnType).setof,
            language: None,
            body: None,
            volatility: 'v',
            strict: false,
            security_definer: false,
            sets: vec![],
        };
        for option in nodes(create.options) {
            let option = &*option.cast::<pg_sys::DefElem>();
            let argument = option.arg;
            match string(option.defname).unwrap_or_default().as_str() {
                "as" => {
                    let parts = match is(argument, NodeTag::T_List) {
                        true => texts(argument.cast()),
                        false => text_of(argument).into_iter().collect(),
                    };
                    // Of a C function the second one is what pg_proc keeps as its source.
                    found.body = parts.last().cloned();
                }
                "language" => found.language = text_of(argument).map(|name| name.to_lowercase()),
                "volatility" => {
                    found.volatility = match text_of(argument).as_deref() {
                        Some("immutable") => 'i',
                        Some("stable") => 's',
                        _ => 'v',
                    }
                }
                "strict" => found.strict = truth(argument),
                "security" => found.security_definer = truth(argument),
                "set" if is(argument, NodeTag::T_VariableSetStmt) => {
                    found
                        .sets
                        .extend(string((*argument.cast::<pg_sys::VariableSetStmt>()).name));
                }
                _ => {}
            }
        }
        vec![Action::CreateFunction(found)]
    }
}

/// # Safety
/// `node` points at a CreateTrigStmt.
pub(super) unsafe fn trigger(node: *mut pg_sys::CreateTrigStmt) -> TriggerDefinition {
    // SAFETY: the caller's promise.
    unsafe {
        let create = &*node;
        #[cfg(feature = "pg13")]
        let replace = false;
        #[cfg(not(feature = "pg13"))]
        let replace = create.replace;
        TriggerDefinition {
            name: string(create.trigname).unwrap_or_default(),
            table: range(create.relation),
            replace,
            kind: create.timing | create.events | i16::from(create.row),
            columns: texts(create.columns),
            function: name_of(&texts(create.funcname)),
            arguments: texts(create.args),
            condition: expression(create.whenClause),
            constraint: create.isconstraint,
        }
    }
}

/// # Safety
/// `node` points at a CreatePolicyStmt.
pub(super) unsafe fn policy(node: *mut pg_sys::CreatePolicyStmt) -> PolicyDefinition {
    // SAFETY: the caller's promise.
    unsafe {
        let create = &*node;
        PolicyDefinition {
            name: string(create.policy_name).unwrap_or_default(),
            table: range(create.table),
            command: match string(create.cmd_name).as_deref() {
                Some("select") => 'r',
                Some("insert") => 'a',
                Some("update") => 'w',
                Some("delete") => 'd',
                _ => '*',
            },
            permissive: create.permissive,
            roles: roles(create.roles),
            using: expression(create.qual),
            check: expression(create.with_check),
        }
    }
}
