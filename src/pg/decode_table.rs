//! Parse tree → tables, columns, constraints, indexes.

use pgrx::pg_sys::{self, AlterTableType, ConstrType, NodeTag};

use super::tree::{Expression, expression, is, nodes, range, string, texts, type_name};
use crate::script::ast::{
    Action, ColumnChange, ColumnDefinition, ConstraintDefinition, ForeignKeyDefinition, IndexDefinition, IndexPart,
    Kind, Name, Rule, Target,
};

/// # Safety
/// `node` points at a CreateStmt (of a foreign table: at its first field, which is one).
pub(super) unsafe fn create_table(node: *mut pg_sys::CreateStmt) -> Vec<Action> {
    // SAFETY: tags are checked before casts.
    unsafe {
        let create = &*node;
        let mut columns = Vec::new();
        let mut constraints = Vec::new();
        let mut from: Vec<Name> = nodes(create.inhRelations)
            .into_iter()
            .map(|node| range(node.cast()))
            .collect();
        let mut more = Vec::new();
        let name = range(create.relation);
        for element in nodes(create.tableElts).into_iter().chain(nodes(create.constraints)) {
            match (*element).type_ {
                // Options for a column that comes from elsewhere (PARTITION OF, OF a type).
                NodeTag::T_ColumnDef if (*element.cast::<pg_sys::ColumnDef>()).typeName.is_null() => {
                    more.push(Action::NotCompared {
                        what: "options of columns that come from elsewhere".into(),
                        target: None,
                    });
                }
                NodeTag::T_ColumnDef => columns.push(column(element.cast())),
                NodeTag::T_Constraint => constraints.extend(constraint(element.cast())),
                NodeTag::T_TableLikeClause => {
                    from.push(range((*element.cast::<pg_sys::TableLikeClause>()).relation));
                }
                _ => {}
            }
        }
        if !create.ofTypename.is_null() {
            more.push(Action::NotCompared {
                what: "the columns of its type".into(),
                target: None,
            });
        }
        let mut all = vec![Action::CreateTable {
            name,
            temporary: (*create.relation).relpersistence as u8 == b't',
            if_not_exists: create.if_not_exists,
            columns,
            constraints,
            from,
            options: !create.partspec.is_null()
                || !create.options.is_null()
                || !create.tablespacename.is_null()
                || !create.accessMethod.is_null()
                || !create.partbound.is_null(),
        }];
        all.extend(more);
        all
    }
}

/// `int4` for `serial`.
pub(super) fn serial_type(names: &[String]) -> Option<&'static str> {
    match names {
        [name] => match name.as_str() {
            "serial" | "serial4" => Some("int4"),
            "bigserial" | "serial8" => Some("int8"),
            "smallserial" | "serial2" => Some("int2"),
            _ => None,
        },
        _ => None,
    }
}

/// # Safety
/// `node` points at a ColumnDef with a type.
unsafe fn column(node: *mut pg_sys::ColumnDef) -> ColumnDefinition {
    // SAFETY: tags are checked before casts; strings given to Postgres are static and NUL-terminated.
    unsafe {
        let definition = &*node;
        let mut type_of = definition.typeName;
        let mut serial = false;
        if !type_of.is_null()
            && let Some(base) = serial_type(&texts((*type_of).names))
        {
            serial = true;
            let base = match base {
                "int2" => c"int2",
                "int8" => c"int8",
                _ => c"int4",
            };
            type_of = pg_sys::SystemTypeName(base.as_ptr().cast_mut());
        }
        let mut found = ColumnDefinition {
            name: string(definition.colname).unwrap_or_default(),
            type_name: match type_of.is_null() {
                true => type_name(pg_sys::SystemTypeName(c"text".as_ptr().cast_mut())),
                false => type_name(type_of),
            },
            serial,
            not_null: serial || definition.is_not_null,
            default: expression(definition.raw_default),
            generated: None,
            identity: None,
            constraints: vec![],
        };
        for node in nodes(definition.constraints) {
            if !is(node, NodeTag::T_Constraint) {
                continue;
            }
            let one = &*node.cast::<pg_sys::Constraint>();
            match one.contype {
                ConstrType::CONSTR_NOTNULL => found.not_null = true,
                ConstrType::CONSTR_DEFAULT => found.default = expression(one.raw_expr),
                ConstrType::CONSTR_IDENTITY => {
                    found.identity = Some(one.generated_when as u8 as char);
                    found.not_null = true;
                }
                ConstrType::CONSTR_GENERATED => found.generated = expression(one.raw_expr),
                ConstrType::CONSTR_ATTR_DEFERRABLE => attribute(&mut found.constraints, |c| c.deferrable = true),
                ConstrType::CONSTR_ATTR_DEFERRED => attribute(&mut found.constraints, |c| {
                    c.deferred = true;
                    c.deferrable = true;
                }),
                _ => {
                    if let Some(mut more) = constraint(node.cast()) {
                        if !matches!(more.rule, Rule::Check(_)) {
                            more.columns = vec![found.name.clone()];
                        }
                        found.not_null |= matches!(more.rule, Rule::Primary);
                        found.constraints.push(more);
                    }
                }
            }
        }
        found
    }
}

/// DEFERRABLE behind a column's constraint speaks of the one in front of it.
fn attribute(constraints: &mut [ConstraintDefinition], set: impl FnOnce(&mut ConstraintDefinition)) {
    if let Some(last) = constraints.last_mut() {
        set(last);
    }
}

/// # Safety
/// `node` points at a Constraint.
pub(super) unsafe fn constraint(node: *mut pg_sys::Constraint) -> Option<ConstraintDefinition> {
    // SAFETY: the caller's promise; which fields are set depends on the type of the constraint.
    unsafe {
        let one = &*node;
        let mut columns = texts(one.keys);
        let rule = match one.contype {
            ConstrType::CONSTR_PRIMARY => Rule::Primary,
            ConstrType::CONSTR_UNIQUE => Rule::Unique {
                #[cfg(any(feature = "pg13", feature = "pg14"))]
                nulls_not_distinct: false,
                #[cfg(not(any(feature = "pg13", feature = "pg14")))]
                nulls_not_distinct: one.nulls_not_distinct,
            },
            ConstrType::CONSTR_CHECK => Rule::Check(Expression(one.raw_expr)),
            ConstrType::CONSTR_EXCLUSION => Rule::Exclude,
            ConstrType::CONSTR_FOREIGN => {
                columns = texts(one.fk_attrs);
                Rule::Foreign(ForeignKeyDefinition {
                    parent: range(one.pktable),
                    parent_columns: texts(one.pk_attrs),
                    matching: match one.fk_matchtype as u8 {
                        b'f' => 'f',
                        _ => 's',
                    },
                    on_update: one.fk_upd_action as u8 as char,
                    on_delete: one.fk_del_action as u8 as char,
                })
            }
            _ => return None,
        };
        Some(ConstraintDefinition {
            name: string(one.conname),
            columns,
            using_index: string(one.indexname),
            rule,
            deferrable: one.deferrable,
            deferred: one.initdeferred,
            not_valid: one.skip_validation,
        })
    }
}

/// # Safety
/// `node` points at an IndexStmt.
pub(super) unsafe fn index(node: *mut pg_sys::IndexStmt) -> IndexDefinition {
    // SAFETY: the lists of an index are of IndexElem.
    unsafe {
        let create = &*node;
        let part = |node: *mut pg_sys::Node| -> IndexPart {
            let part = &*node.cast::<pg_sys::IndexElem>();
            let descending = part.ordering == pg_sys::SortByDir::SORTBY_DESC;
            IndexPart {
                column: string(part.name),
                expression: expression(part.expr),
                descending,
                nulls_first: match part.nulls_ordering {
                    pg_sys::SortByNulls::SORTBY_NULLS_FIRST => true,
                    pg_sys::SortByNulls::SORTBY_NULLS_LAST => false,
                    _ => descending,
                },
                operator_class: texts(part.opclass).pop(),
            }
        };
        #[cfg(any(feature = "pg13", feature = "pg14"))]
        let nulls_not_distinct = false;
        #[cfg(not(any(feature = "pg13", feature = "pg14")))]
        let nulls_not_distinct = create.nulls_not_distinct;
        IndexDefinition {
            name: string(create.idxname),
            table: range(create.relation),
            method: string(create.accessMethod).unwrap_or_else(|| "btree".into()),
            unique: create.unique,
            nulls_not_distinct,
            parts: nodes(create.indexParams).into_iter().map(part).collect(),
            including: nodes(create.indexIncludingParams)
                .into_iter()
                .filter_map(|node| string((*node.cast::<pg_sys::IndexElem>()).name))
                .collect(),
            predicate: expression(create.whereClause),
            concurrently: create.concurrent,
            if_not_exists: create.if_not_exists,
        }
    }
}

/// # Safety
/// `node` points at an AlterTableStmt.
pub(super) unsafe fn table_commands(node: *mut pg_sys::AlterTableStmt) -> Vec<Action> {
    // SAFETY: tags are checked before casts; which fields are set depends on the type of the command.
    unsafe {
        let alter = &*node;
        let table = range(alter.relation);
        #[cfg(feature = "pg13")]
        let kind = alter.relkind;
        #[cfg(not(feature = "pg13"))]
        let kind = alter.objtype;
        if kind == pg_sys::ObjectType::OBJECT_TYPE {
            return vec![Action::NotCompared {
                what: "what the type is made of".into(),
                target: Some(Target {
                    kind: Kind::Type,
                    name: table,
                    on: None,
                    arguments: None,
                }),
            }];
        }
        let mut all = Vec::new();
        for command in nodes(alter.cmds) {
            let command = &*command.cast::<pg_sys::AlterTableCmd>();
            let name = string(command.name).unwrap_or_default();
            let changed = |change: ColumnChange| Action::AlterColumn {
                table: table.clone(),
                column: name.clone(),
                change,
            };
            let dropped = |kind: Kind| Action::Drop {
                target: Target {
                    kind,
                    name: Name {
                        schema: None,
                        name: name.clone(),
                    },
                    on: Some(table.clone()),
                    arguments: None,
                },
                if_exists: command.missing_ok,
                cascade: command.behavior == pg_sys::DropBehavior::DROP_CASCADE,
            };
            let secured = |force: bool, on: bool| Action::RowSecurity {
                table: table.clone(),
                force,
                on,
            };
            let definition = command.def;
            all.push(match command.subtype {
                AlterTableType::AT_AddColumn if is(definition, NodeTag::T_ColumnDef) => Action::AddColumn {
                    table: table.clone(),
                    column: column(definition.cast()),
                    if_not_exists: command.missing_ok,
                },
                AlterTableType::AT_DropColumn => dropped(Kind::Column),
                AlterTableType::AT_DropConstraint => dropped(Kind::Constraint),
                AlterTableType::AT_ColumnDefault => changed(ColumnChange::Default(expression(definition))),
                AlterTableType::AT_SetNotNull => changed(ColumnChange::NotNull(true)),
                AlterTableType::AT_DropNotNull => changed(ColumnChange::NotNull(false)),
                AlterTableType::AT_AlterColumnType if is(definition, NodeTag::T_ColumnDef) => changed(
                    ColumnChange::Type(type_name((*definition.cast::<pg_sys::ColumnDef>()).typeName)),
                ),
                AlterTableType::AT_AddIdentity if is(definition, NodeTag::T_Constraint) => {
                    let when = (*definition.cast::<pg_sys::Constraint>()).generated_when;
                    changed(ColumnChange::Identity(Some(when as u8 as char)))
                }
                AlterTableType::AT_DropIdentity => changed(ColumnChange::Identity(None)),
                AlterTableType::AT_AddConstraint if is(definition, NodeTag::T_Constraint) => {
                    match constraint(definition.cast()) {
                        Some(constraint) => Action::AddConstraint {
                            table: table.clone(),
                            constraint,
                        },
                        None => other(&table),
                    }
                }
                AlterTableType::AT_ValidateConstraint => Action::ValidateConstraint {
                    table: table.clone(),
                    name,
                },
                AlterTableType::AT_EnableRowSecurity => secured(false, true),
                AlterTableType::AT_DisableRowSecurity => secured(false, false),
                AlterTableType::AT_ForceRowSecurity => secured(true, true),
                AlterTableType::AT_NoForceRowSecurity => secured(true, false),
                _ => other(&table),
            });
        }
        all
    }
}

fn other(table: &Name) -> Action {
    Action::NotCompared {
        what: "this ALTER TABLE".into(),
        target: Some(Target {
            kind: Kind::Table,
            name: table.clone(),
            on: None,
            arguments: None,
        }),
    }
}
