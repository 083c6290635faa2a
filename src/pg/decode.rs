//! Parse tree → what the statement does. Tags are checked before every cast; see `tree` for who owns the nodes.

use pgrx::pg_sys::{self, NodeTag, ObjectType};

use super::ast::{Action, Kind, Name, Target};
use super::decode_routine::{alter_policy, function, policy, trigger};
use super::decode_table::{create_table, index, table_commands};
use super::decode_type::{alter_sequence, composite, create_sequence, domain};
use super::tree::{constant, expression, is, name_of, nodes, range, role, roles, string, text_of, texts, type_name};

/// What a statement does.
///
/// # Safety
/// `node` points at a statement as the parser left it.
pub(super) unsafe fn actions(node: *mut pg_sys::Node) -> Vec<Action> {
    // SAFETY: the caller's promise; each arm casts to the struct of its tag.
    unsafe {
        match (*node).type_ {
            NodeTag::T_CreateStmt => create_table(node.cast()),
            NodeTag::T_CreateForeignTableStmt => create_table(node.cast()),
            NodeTag::T_AlterTableStmt => table_commands(node.cast()),
            NodeTag::T_IndexStmt => vec![Action::CreateIndex(index(node.cast()))],
            NodeTag::T_CreateSchemaStmt => schema(node.cast()),
            NodeTag::T_CreateExtensionStmt => {
                let create = &*node.cast::<pg_sys::CreateExtensionStmt>();
                vec![Action::CreateExtension {
                    name: string(create.extname).unwrap_or_default(),
                    if_not_exists: create.if_not_exists,
                }]
            }
            NodeTag::T_CreateFunctionStmt => function(node.cast()),
            NodeTag::T_CreateTrigStmt => vec![Action::CreateTrigger(trigger(node.cast()))],
            NodeTag::T_CreatePolicyStmt => vec![Action::CreatePolicy(policy(node.cast()))],
            NodeTag::T_CreateEnumStmt => {
                let create = &*node.cast::<pg_sys::CreateEnumStmt>();
                vec![Action::CreateEnum {
                    name: name_of(&texts(create.typeName)),
                    labels: texts(create.vals),
                }]
            }
            NodeTag::T_AlterEnumStmt => alter_enum(node.cast()),
            NodeTag::T_CompositeTypeStmt => composite(node.cast()),
            NodeTag::T_CreateRangeStmt => {
                let create = &*node.cast::<pg_sys::CreateRangeStmt>();
                vec![Action::CreateType {
                    name: name_of(&texts(create.typeName)),
                }]
            }
            NodeTag::T_CreateDomainStmt => domain(node.cast()),
            NodeTag::T_CreateSeqStmt => create_sequence(node.cast()),
            NodeTag::T_ViewStmt => {
                let create = &*node.cast::<pg_sys::ViewStmt>();
                let with =
                    !create.options.is_null() || create.withCheckOption != pg_sys::ViewCheckOption::NO_CHECK_OPTION;
                let options = if with {
                    not_compared("options of the view")
                } else {
                    vec![]
                };
                match expression(create.query) {
                    Some(query) => vec![Action::CreateView {
                        name: range(create.view),
                        replace: create.replace,
                        columns: texts(create.aliases),
                        query,
                    }]
                    .into_iter()
                    .chain(options)
                    .collect(),
                    None => vec![],
                }
            }
            NodeTag::T_CreateTableAsStmt => table_as(node.cast()),
            NodeTag::T_DropStmt => drop(node.cast()),
            NodeTag::T_RenameStmt => rename(node.cast()),
            NodeTag::T_AlterObjectSchemaStmt => {
                let alter = &*node.cast::<pg_sys::AlterObjectSchemaStmt>();
                let to = string(alter.newschema).unwrap_or_default();
                match target(alter.objectType, alter.relation, alter.object, None) {
                    Some(target) => vec![Action::SetSchema { target, to }],
                    None => not_compared("this SET SCHEMA"),
                }
            }
            NodeTag::T_AlterFunctionStmt => {
                let alter = &*node.cast::<pg_sys::AlterFunctionStmt>();
                changed(
                    target(alter.objtype, std::ptr::null_mut(), alter.func.cast(), None),
                    "this ALTER",
                )
            }
            NodeTag::T_AlterSeqStmt => alter_sequence(node.cast()),
            NodeTag::T_AlterPolicyStmt => alter_policy(node.cast()),
            NodeTag::T_AlterDomainStmt => {
                let alter = &*node.cast::<pg_sys::AlterDomainStmt>();
                let found = Target {
                    kind: Kind::Domain,
                    name: name_of(&texts(alter.typeName)),
                    on: None,
                    arguments: None,
                };
                changed(Some(found), "what ALTER DOMAIN changes")
            }
            NodeTag::T_AlterOwnerStmt => {
                let alter = &*node.cast::<pg_sys::AlterOwnerStmt>();
                match target(alter.objectType, alter.relation, alter.object, None) {
                    Some(target) => vec![Action::Owner {
                        target,
                        role: role(alter.newowner),
                    }],
                    None => not_compared("the owner"),
                }
            }
            NodeTag::T_GrantStmt => grant(node.cast()),
            NodeTag::T_CommentStmt => comment(node.cast()),
            NodeTag::T_VariableSetStmt => setting(node.cast()),
            NodeTag::T_TransactionStmt => skipped("begins or ends a transaction"),
            NodeTag::T_VariableShowStmt | NodeTag::T_ExplainStmt | NodeTag::T_CheckPointStmt => {
                skipped("changes nothing")
            }
            NodeTag::T_VacuumStmt | NodeTag::T_ReindexStmt | NodeTag::T_ClusterStmt => {
                skipped("changes how things are stored, not what they are")
            }
            NodeTag::T_LockStmt | NodeTag::T_ListenStmt | NodeTag::T_NotifyStmt | NodeTag::T_DiscardStmt => {
                skipped("leaves nothing behind")
            }
            NodeTag::T_InsertStmt => data(vec![(*node.cast::<pg_sys::InsertStmt>()).relation]),
            NodeTag::T_UpdateStmt => data(vec![(*node.cast::<pg_sys::UpdateStmt>()).relation]),
            NodeTag::T_DeleteStmt => data(vec![(*node.cast::<pg_sys::DeleteStmt>()).relation]),
            #[cfg(not(any(feature = "pg13", feature = "pg14")))]
            NodeTag::T_MergeStmt => data(vec![(*node.cast::<pg_sys::MergeStmt>()).relation]),
            NodeTag::T_TruncateStmt => {
                let all = nodes((*node.cast::<pg_sys::TruncateStmt>()).relations);
                data(all.into_iter().map(|node| node.cast()).collect())
            }
            NodeTag::T_CopyStmt => {
                let copy = &*node.cast::<pg_sys::CopyStmt>();
                let mut all = match copy.is_from {
                    true => data(vec![copy.relation]),
                    false => skipped("reads only"),
                };
                if copy.is_program || !copy.filename.is_null() {
                    all.push(Action::Outside {
                        what: if copy.is_program { "a program" } else { "a file" }.into(),
                    });
                }
                all
            }
            NodeTag::T_RefreshMatViewStmt => data(vec![(*node.cast::<pg_sys::RefreshMatViewStmt>()).relation]),
            NodeTag::T_SelectStmt => select(node.cast()),
            NodeTag::T_DoStmt => opaque("a DO block: what it does is known only when it runs"),
            NodeTag::T_CallStmt => opaque("a procedure: what it does is known only when it runs"),
            NodeTag::T_ExecuteStmt | NodeTag::T_PrepareStmt | NodeTag::T_DeallocateStmt => {
                opaque("a prepared statement: what it does is known only when it runs")
            }
            NodeTag::T_RuleStmt => opaque("a rule: not compared"),
            _ => not_compared("this kind of statement"),
        }
    }
}

fn skipped(what: &str) -> Vec<Action> {
    vec![Action::Skipped { what: what.into() }]
}

fn opaque(what: &str) -> Vec<Action> {
    vec![Action::Opaque { what: what.into() }]
}

fn not_compared(what: &str) -> Vec<Action> {
    vec![Action::NotCompared {
        what: what.into(),
        target: None,
    }]
}

/// Something of an object changes, and is not compared.
fn changed(target: Option<Target>, what: &str) -> Vec<Action> {
    vec![Action::NotCompared {
        what: what.into(),
        target,
    }]
}

/// # Safety
/// Each is NULL or points at a RangeVar.
unsafe fn data(relations: Vec<*mut pg_sys::RangeVar>) -> Vec<Action> {
    // SAFETY: the caller's promise.
    unsafe {
        let tables = relations
            .into_iter()
            .filter(|r| !r.is_null())
            .map(|r| range(r))
            .collect();
        vec![Action::Data { tables }]
    }
}

/// `pg_dump` sets the search_path by a function; any other SELECT may do anything.
///
/// # Safety
/// `node` points at a SelectStmt.
unsafe fn select(node: *mut pg_sys::SelectStmt) -> Vec<Action> {
    // SAFETY: tags are checked before casts.
    unsafe {
        if !(*node).intoClause.is_null() {
            let relation = (*(*node).intoClause).rel;
            return vec![Action::CreateTableAs {
                name: range(relation),
                materialized_view: false,
                temporary: (*relation).relpersistence as u8 == b't',
                if_not_exists: false,
                columns: vec![],
                query: None,
            }];
        }
        if let [only] = nodes((*node).targetList).as_slice()
            && is(*only, NodeTag::T_ResTarget)
        {
            let value = (*only.cast::<pg_sys::ResTarget>()).val;
            if is(value, NodeTag::T_FuncCall) {
                let call = &*value.cast::<pg_sys::FuncCall>();
                let arguments = nodes(call.args);
                let name = texts(call.funcname);
                if name.last().is_some_and(|n| n == "set_config")
                    && let [which, what, _] = arguments.as_slice()
                    && constant(*which).as_deref() == Some("search_path")
                    && let Some(path) = constant(*what)
                {
                    let names = path.split(',').map(|part| part.trim().trim_matches('"').to_string());
                    return vec![Action::SearchPath(Some(names.filter(|n| !n.is_empty()).collect()))];
                }
            }
        }
        vec![Action::Data { tables: vec![] }]
    }
}

/// # Safety
/// `node` points at a CreateSchemaStmt.
unsafe fn schema(node: *mut pg_sys::CreateSchemaStmt) -> Vec<Action> {
    // SAFETY: the elements of a schema are statements.
    unsafe {
        let create = &*node;
        let name = string(create.schemaname)
            .or_else(|| {
                (!create.authrole.is_null())
                    .then(|| string((*create.authrole).rolename))
                    .flatten()
            })
            .unwrap_or_default();
        let mut all = vec![Action::CreateSchema {
            name,
            if_not_exists: create.if_not_exists,
        }];
        if !nodes(create.schemaElts).is_empty() {
            all.extend(not_compared("what is created inside of CREATE SCHEMA"));
        }
        all
    }
}

/// # Safety
/// `node` points at an AlterEnumStmt.
unsafe fn alter_enum(node: *mut pg_sys::AlterEnumStmt) -> Vec<Action> {
    // SAFETY: the caller's promise.
    unsafe {
        let alter = &*node;
        let name = name_of(&texts(alter.typeName));
        let label = string(alter.newVal).unwrap_or_default();
        match string(alter.oldVal) {
            Some(old) => vec![Action::Rename {
                target: Target {
                    kind: Kind::Label,
                    name: Name {
                        schema: None,
                        name: old,
                    },
                    on: Some(name),
                    arguments: None,
                },
                to: label,
                if_exists: false,
            }],
            None => vec![Action::AddLabel {
                name,
                label,
                if_not_exists: alter.skipIfNewValExists,
            }],
        }
    }
}

/// # Safety
/// `node` points at a CreateTableAsStmt.
unsafe fn table_as(node: *mut pg_sys::CreateTableAsStmt) -> Vec<Action> {
    // SAFETY: the caller's promise; INTO always names a relation.
    unsafe {
        let create = &*node;
        #[cfg(feature = "pg13")]
        let kind = create.relkind;
        #[cfg(not(feature = "pg13"))]
        let kind = create.objtype;
        let relation = (*create.into).rel;
        vec![Action::CreateTableAs {
            name: range(relation),
            materialized_view: kind == ObjectType::OBJECT_MATVIEW,
            temporary: (*relation).relpersistence as u8 == b't',
            if_not_exists: create.if_not_exists,
            columns: texts((*create.into).colNames),
            query: expression(create.query),
        }]
    }
}

/// # Safety
/// `relation` is NULL or a RangeVar; `object` is NULL or what the parser leaves for this type of object.
unsafe fn target(
    of: ObjectType::Type,
    relation: *mut pg_sys::RangeVar,
    object: *mut pg_sys::Node,
    subname: Option<String>,
) -> Option<Target> {
    // SAFETY: tags are checked before casts.
    unsafe {
        let kind = match of {
            ObjectType::OBJECT_TABLE | ObjectType::OBJECT_FOREIGN_TABLE => Kind::Table,
            ObjectType::OBJECT_VIEW => Kind::View,
            ObjectType::OBJECT_MATVIEW => Kind::MaterializedView,
            ObjectType::OBJECT_SEQUENCE => Kind::Sequence,
            ObjectType::OBJECT_INDEX => Kind::Index,
            ObjectType::OBJECT_TYPE => Kind::Type,
            ObjectType::OBJECT_DOMAIN => Kind::Domain,
            ObjectType::OBJECT_SCHEMA => Kind::Schema,
            ObjectType::OBJECT_EXTENSION => Kind::Extension,
            ObjectType::OBJECT_FUNCTION
            | ObjectType::OBJECT_PROCEDURE
            | ObjectType::OBJECT_ROUTINE
            | ObjectType::OBJECT_AGGREGATE => Kind::Function,
            ObjectType::OBJECT_COLUMN => Kind::Column,
            ObjectType::OBJECT_TABCONSTRAINT => Kind::Constraint,
            ObjectType::OBJECT_TRIGGER => Kind::Trigger,
            ObjectType::OBJECT_POLICY => Kind::Policy,
            _ => return None,
        };
        let belongs = matches!(kind, Kind::Column | Kind::Constraint | Kind::Trigger | Kind::Policy);
        let mut arguments = None;
        let mut parts = if is(object, NodeTag::T_List) {
            texts(object.cast())
        } else if is(object, NodeTag::T_TypeName) {
            texts((*object.cast::<pg_sys::TypeName>()).names)
        } else if is(object, NodeTag::T_ObjectWithArgs) {
            let with = &*object.cast::<pg_sys::ObjectWithArgs>();
            // Of a procedure OUT arguments count as well, since 14.
            #[cfg(not(feature = "pg13"))]
            if of == ObjectType::OBJECT_PROCEDURE && !with.objfuncargs.is_null() {
                let all = nodes(with.objfuncargs).into_iter();
                let types = all.map(|p| type_name((*p.cast::<pg_sys::FunctionParameter>()).argType));
                arguments = Some(types.collect());
            }
            if !with.args_unspecified && arguments.is_none() {
                let all = nodes(with.objargs);
                let types = all.into_iter().filter(|t| is(*t, NodeTag::T_TypeName));
                arguments = Some(types.map(|t| type_name(t.cast())).collect());
            }
            texts(with.objname)
        } else {
            text_of(object).into_iter().collect()
        };
        let relation = (!relation.is_null()).then(|| range(relation));
        let (name, on) = match (belongs, relation, subname) {
            (true, Some(on), Some(own)) => (
                Name {
                    schema: None,
                    name: own,
                },
                Some(on),
            ),
            (true, Some(on), None) => (name_of(&parts), Some(on)),
            (true, None, _) => {
                let own = parts.pop()?;
                (
                    Name {
                        schema: None,
                        name: own,
                    },
                    Some(name_of(&parts)),
                )
            }
            (false, Some(relation), _) => (relation, None),
            (false, None, own) => {
                if parts.is_empty() {
                    parts.extend(own);
                }
                (name_of(&parts), None)
            }
        };
        Some(Target {
            kind,
            name,
            on,
            arguments,
        })
    }
}

/// # Safety
/// `node` points at a DropStmt.
unsafe fn drop(node: *mut pg_sys::DropStmt) -> Vec<Action> {
    // SAFETY: the caller's promise.
    unsafe {
        let stmt = &*node;
        let all = nodes(stmt.objects);
        let found: Vec<Action> = all
            .iter()
            .filter_map(|object| target(stmt.removeType, std::ptr::null_mut(), *object, None))
            .map(|target| Action::Drop {
                target,
                if_exists: stmt.missing_ok,
                cascade: stmt.behavior == pg_sys::DropBehavior::DROP_CASCADE,
            })
            .collect();
        match found.len() == all.len() {
            true => found,
            false => not_compared("this DROP"),
        }
    }
}

/// # Safety
/// `node` points at a RenameStmt.
unsafe fn rename(node: *mut pg_sys::RenameStmt) -> Vec<Action> {
    // SAFETY: the caller's promise.
    unsafe {
        let stmt = &*node;
        let to = string(stmt.newname).unwrap_or_default();
        match target(stmt.renameType, stmt.relation, stmt.object, string(stmt.subname)) {
            Some(target) => vec![Action::Rename {
                target,
                to,
                if_exists: stmt.missing_ok,
            }],
            None => not_compared("this RENAME"),
        }
    }
}

/// # Safety
/// `node` points at a GrantStmt.
unsafe fn grant(node: *mut pg_sys::GrantStmt) -> Vec<Action> {
    // SAFETY: tags are checked before casts.
    unsafe {
        let stmt = &*node;
        let mut of_columns = false;
        let mut privileges = Vec::new();
        for privilege in nodes(stmt.privileges) {
            let privilege = &*privilege.cast::<pg_sys::AccessPriv>();
            of_columns |= !privilege.cols.is_null();
            privileges.extend(string(privilege.priv_name).map(|name| name.to_uppercase()));
        }
        if stmt.targtype != pg_sys::GrantTargetType::ACL_TARGET_OBJECT || of_columns {
            return not_compared("privileges on columns, or on all objects of a schema");
        }
        let mut targets = Vec::new();
        for object in nodes(stmt.objects) {
            let found = match is(object, NodeTag::T_RangeVar) {
                true => target(stmt.objtype, object.cast(), std::ptr::null_mut(), None),
                false => target(stmt.objtype, std::ptr::null_mut(), object, None),
            };
            match found {
                Some(found) => targets.push(found),
                None => return not_compared("privileges on this kind of object"),
            }
        }
        vec![Action::Grant {
            revoke: !stmt.is_grant,
            privileges,
            targets,
            roles: roles(stmt.grantees),
        }]
    }
}

/// # Safety
/// `node` points at a CommentStmt.
unsafe fn comment(node: *mut pg_sys::CommentStmt) -> Vec<Action> {
    // SAFETY: the caller's promise.
    unsafe {
        let stmt = &*node;
        match target(stmt.objtype, std::ptr::null_mut(), stmt.object, None) {
            Some(target) => vec![Action::Comment {
                target,
                text: string(stmt.comment).filter(|text| !text.is_empty()),
            }],
            None => not_compared("a comment on this kind of object"),
        }
    }
}

/// # Safety
/// `node` points at a VariableSetStmt.
unsafe fn setting(node: *mut pg_sys::VariableSetStmt) -> Vec<Action> {
    // SAFETY: the caller's promise.
    unsafe {
        let stmt = &*node;
        let name = string(stmt.name).unwrap_or_default().to_lowercase();
        if name != "search_path" {
            return skipped("a setting of the session");
        }
        let names: Vec<String> = nodes(stmt.args).into_iter().filter_map(|node| constant(node)).collect();
        vec![Action::SearchPath(match stmt.kind {
            pg_sys::VariableSetKind::VAR_SET_VALUE => Some(names),
            _ => None,
        })]
    }
}
