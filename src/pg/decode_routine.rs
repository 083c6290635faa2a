//! Parse tree → functions, triggers, policies.

use pgrx::pg_sys::{self, NodeTag};

use super::ast::{Action, FunctionDefinition, Parameter, PolicyDefinition, TriggerDefinition};
use super::tree::{expression, is, name_of, nodes, range, roles, string, text_of, texts, truth, type_name};

/// # Safety
/// `node` points at a CreateFunctionStmt.
pub(super) unsafe fn function(node: *mut pg_sys::CreateFunctionStmt) -> Vec<Action> {
    // SAFETY: tags are checked before casts.
    unsafe {
        let create = &*node;
        let mut arguments = Vec::new();
        let mut parameters = Vec::new();
        let mut outputs = false;
        let mut table = false;
        for parameter in nodes(create.parameters) {
            let parameter = &*parameter.cast::<pg_sys::FunctionParameter>();
            parameters.push(Parameter {
                name: string(parameter.name),
                mode: match parameter.mode {
                    pg_sys::FunctionParameterMode::FUNC_PARAM_OUT => 'o',
                    pg_sys::FunctionParameterMode::FUNC_PARAM_INOUT => 'b',
                    pg_sys::FunctionParameterMode::FUNC_PARAM_VARIADIC => 'v',
                    pg_sys::FunctionParameterMode::FUNC_PARAM_TABLE => 't',
                    _ => 'i',
                },
                type_name: type_name(parameter.argType),
                default: expression(parameter.defexpr),
            });
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
            parameters,
            returns: (written && !table && !outputs).then(|| type_name(create.returnType)),
            set: table || written && (*create.returnType).setof,
            language: None,
            body: None,
            #[cfg(feature = "pg13")]
            statements: None,
            #[cfg(not(feature = "pg13"))]
            statements: expression(create.sql_body),
            volatility: 'v',
            strict: false,
            security_definer: false,
            leakproof: false,
            parallel: 'u',
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
                "leakproof" => found.leakproof = truth(argument),
                "parallel" => {
                    found.parallel = match text_of(argument).as_deref() {
                        Some("safe") => 's',
                        Some("restricted") => 'r',
                        _ => 'u',
                    }
                }
                "set" if is(argument, NodeTag::T_VariableSetStmt) => {
                    let set = &*argument.cast::<pg_sys::VariableSetStmt>();
                    let name = string(set.name).unwrap_or_default();
                    match set.kind {
                        pg_sys::VariableSetKind::VAR_SET_VALUE => found.sets.push((name, expression(argument))),
                        pg_sys::VariableSetKind::VAR_SET_CURRENT => found.sets.push((name, None)),
                        _ => {}
                    }
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
        let transition = |new: bool| {
            let all = nodes(create.transitionRels).into_iter();
            all.map(|node| &*node.cast::<pg_sys::TriggerTransition>())
                .find(|table| table.isNew == new)
                .and_then(|table| string(table.name))
        };
        TriggerDefinition {
            name: string(create.trigname).unwrap_or_default(),
            table: range(create.relation),
            replace,
            kind: create.timing | create.events | i16::from(create.row),
            columns: texts(create.columns),
            function: name_of(&texts(create.funcname)),
            arguments: texts(create.args),
            condition: expression(create.whenClause),
            constraint: (create.isconstraint, create.deferrable, create.initdeferred),
            transitions: (transition(false), transition(true)),
        }
    }
}

/// # Safety
/// `node` points at an AlterPolicyStmt.
pub(super) unsafe fn alter_policy(node: *mut pg_sys::AlterPolicyStmt) -> Vec<Action> {
    // SAFETY: the caller's promise.
    unsafe {
        let alter = &*node;
        vec![Action::AlterPolicy {
            name: string(alter.policy_name).unwrap_or_default(),
            table: range(alter.table),
            roles: (!alter.roles.is_null()).then(|| roles(alter.roles)),
            using: expression(alter.qual),
            check: expression(alter.with_check),
        }]
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
