//! Parse tree → tables, columns, constraints, indexes.

use pgrx::pg_sys::{self, AlterTableType, ConstrType, NodeTag};

use pgrx::spi::quote_identifier;

use super::ast::{
    Action, ColumnChange, ColumnDefinition, ConstraintDefinition, Exclusion, Expression, ForeignKeyDefinition,
    IndexDefinition, IndexPart, Kind, Name, PartitionKey, Rule, Target,
};
use super::tree::{expression, is, name_of, nodes, range, role, string, texts, type_name};

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
        let mut never_null: Vec<String> = Vec::new();
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
                // Since 18 NOT NULL may stand behind the columns.
                NodeTag::T_Constraint
                    if (*element.cast::<pg_sys::Constraint>()).contype == ConstrType::CONSTR_NOTNULL =>
                {
                    never_null.extend(texts((*element.cast::<pg_sys::Constraint>()).keys));
                }
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
        for column in columns
            .iter_mut()
            .filter(|c: &&mut ColumnDefinition| never_null.contains(&c.name))
        {
            column.not_null = true;
        }
        let mut all = vec![Action::CreateTable {
            name,
            temporary: (*create.relation).relpersistence as u8 == b't',
            if_not_exists: create.if_not_exists,
            columns,
            constraints,
            from,
            parents: nodes(create.inhRelations)
                .into_iter()
                .map(|node| range(node.cast()))
                .collect(),
            bound: expression(create.partbound.cast()),
            partition_key: partition_key(create.partspec),
        }];
        if !create.options.is_null() || !create.tablespacename.is_null() || !create.accessMethod.is_null() {
            more.push(Action::NotCompared {
                what: "how it is stored".into(),
                target: None,
            });
        }
        all.extend(more);
        all
    }
}

/// # Safety
/// `node` is NULL or points at a PartitionSpec.
unsafe fn partition_key(node: *mut pg_sys::PartitionSpec) -> Option<PartitionKey> {
    // SAFETY: the caller's promise; the parts are PartitionElem nodes.
    unsafe {
        if node.is_null() {
            return None;
        }
        #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
        let strategy = string((*node).strategy).unwrap_or_default().to_uppercase();
        #[cfg(not(any(feature = "pg13", feature = "pg14", feature = "pg15")))]
        let strategy = match (*node).strategy {
            pg_sys::PartitionStrategy::PARTITION_STRATEGY_LIST => "LIST",
            pg_sys::PartitionStrategy::PARTITION_STRATEGY_HASH => "HASH",
            _ => "RANGE",
        };
        let strategy = match &*strategy {
            "LIST" => "LIST",
            "HASH" => "HASH",
            _ => "RANGE",
        };
        let parts = nodes((*node).partParams).into_iter().map(|part| {
            let part = &*part.cast::<pg_sys::PartitionElem>();
            let mut behind = String::new();
            if let Some(collation) = collation(part.collation) {
                behind.push_str(&format!(" COLLATE {}", quote_identifier(&collation.name)));
            }
            if let Some(class) = texts(part.opclass).pop() {
                behind.push_str(&format!(" {}", quote_identifier(&class)));
            }
            (string(part.name), expression(part.expr), behind)
        });
        Some(PartitionKey {
            strategy,
            parts: parts.collect(),
        })
    }
}

/// # Safety
/// As [`nodes`]: a list of String nodes.
pub(super) unsafe fn collation(list: *mut pg_sys::List) -> Option<Name> {
    // SAFETY: the caller's promise.
    let names = unsafe { texts(list) };
    (!names.is_empty()).then(|| name_of(&names))
}

/// # Safety
/// `node` is NULL or points at a CollateClause.
pub(super) unsafe fn collate(node: *mut pg_sys::CollateClause) -> Option<Name> {
    // SAFETY: the caller's promise.
    unsafe {
        match node.is_null() {
            true => None,
            false => collation((*node).collname),
        }
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
            collation: collate(definition.collClause),
            serial,
            not_null: serial || definition.is_not_null,
            default: expression(definition.raw_default),
            generated: None,
            is_virtual: false,
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
                ConstrType::CONSTR_GENERATED => {
                    found.generated = expression(one.raw_expr);
                    #[cfg(feature = "pg18")]
                    {
                        found.is_virtual = one.generated_kind as u8 == pg_sys::ATTRIBUTE_GENERATED_VIRTUAL;
                    }
                }
                #[cfg(feature = "pg18")]
                ConstrType::CONSTR_ATTR_NOT_ENFORCED => attribute(&mut found.constraints, |c| {
                    c.enforced = false;
                    c.not_valid = true;
                }),
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
        #[cfg(not(feature = "pg18"))]
        let (enforced, period) = (true, false);
        // Of keys and the like the parser leaves `is_enforced` empty.
        #[cfg(feature = "pg18")]
        let (enforced, period) = (
            one.is_enforced || !matches!(one.contype, ConstrType::CONSTR_CHECK | ConstrType::CONSTR_FOREIGN),
            one.without_overlaps || one.fk_with_period,
        );
        let rule = match one.contype {
            ConstrType::CONSTR_PRIMARY => Rule::Primary,
            ConstrType::CONSTR_UNIQUE => Rule::Unique {
                #[cfg(any(feature = "pg13", feature = "pg14"))]
                nulls_not_distinct: false,
                #[cfg(not(any(feature = "pg13", feature = "pg14")))]
                nulls_not_distinct: one.nulls_not_distinct,
            },
            ConstrType::CONSTR_CHECK => Rule::Check(Expression(one.raw_expr)),
            ConstrType::CONSTR_EXCLUSION => exclusion(node),
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
            enforced,
            period,
        })
    }
}

/// # Safety
/// `node` points at a Constraint of EXCLUDE: pairs of IndexElem and the name of an operator.
unsafe fn exclusion(node: *mut pg_sys::Constraint) -> Rule {
    // SAFETY: the caller's promise; tags are checked before casts.
    unsafe {
        let one = &*node;
        let mut parts = Vec::new();
        let mut operators = Vec::new();
        for pair in nodes(one.exclusions) {
            if let [element, operator] = nodes(pair.cast()).as_slice()
                && is(*operator, NodeTag::T_List)
            {
                parts.push(index_part(*element));
                operators.push(name_of(&texts(operator.cast())));
            }
        }
        Rule::Exclude(Exclusion {
            index: IndexDefinition {
                name: None,
                table: Name {
                    schema: None,
                    name: String::new(),
                },
                method: string(one.access_method).unwrap_or_else(|| "gist".into()),
                unique: false,
                nulls_not_distinct: false,
                parts,
                including: texts(one.including),
                predicate: expression(one.where_clause),
                concurrently: false,
                if_not_exists: false,
            },
            operators,
        })
    }
}

/// # Safety
/// `node` points at an IndexElem.
unsafe fn index_part(node: *mut pg_sys::Node) -> IndexPart {
    // SAFETY: the caller's promise.
    unsafe {
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
            collation: collation(part.collation),
        }
    }
}

/// # Safety
/// `node` points at an IndexStmt.
pub(super) unsafe fn index(node: *mut pg_sys::IndexStmt) -> IndexDefinition {
    // SAFETY: the lists of an index are of IndexElem.
    unsafe {
        let create = &*node;
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
            parts: nodes(create.indexParams)
                .into_iter()
                .map(|node| index_part(node))
                .collect(),
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
            let fires = |state: char| Action::Firing {
                table: table.clone(),
                trigger: name.clone(),
                state,
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
                AlterTableType::AT_AlterColumnType if is(definition, NodeTag::T_ColumnDef) => {
                    let definition = &*definition.cast::<pg_sys::ColumnDef>();
                    changed(ColumnChange::Type(
                        type_name(definition.typeName),
                        collate(definition.collClause),
                    ))
                }
                AlterTableType::AT_AddIdentity if is(definition, NodeTag::T_Constraint) => {
                    let when = (*definition.cast::<pg_sys::Constraint>()).generated_when;
                    changed(ColumnChange::Identity(Some(when as u8 as char), false))
                }
                AlterTableType::AT_DropIdentity => changed(ColumnChange::Identity(None, command.missing_ok)),
                #[cfg(any(feature = "pg17", feature = "pg18"))]
                AlterTableType::AT_SetExpression if !definition.is_null() => {
                    changed(ColumnChange::Expression(Expression(definition)))
                }
                AlterTableType::AT_AddConstraint if is(definition, NodeTag::T_Constraint) => {
                    let one = &*definition.cast::<pg_sys::Constraint>();
                    match constraint(definition.cast()) {
                        // Since 18; until it is validated NULLs may be there.
                        None if one.contype == ConstrType::CONSTR_NOTNULL && !one.skip_validation => {
                            Action::AlterColumn {
                                table: table.clone(),
                                column: texts(one.keys).pop().unwrap_or_default(),
                                change: ColumnChange::NotNull(true),
                            }
                        }
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
                AlterTableType::AT_AttachPartition | AlterTableType::AT_DetachPartition
                    if kind == pg_sys::ObjectType::OBJECT_TABLE && is(definition, NodeTag::T_PartitionCmd) =>
                {
                    let partition = &*definition.cast::<pg_sys::PartitionCmd>();
                    Action::Partition {
                        parent: table.clone(),
                        table: range(partition.name),
                        bound: expression(partition.bound.cast()),
                    }
                }
                AlterTableType::AT_AddInherit | AlterTableType::AT_DropInherit
                    if is(definition, NodeTag::T_RangeVar) =>
                {
                    Action::Inherit {
                        table: table.clone(),
                        parent: range(definition.cast()),
                        yes: command.subtype == AlterTableType::AT_AddInherit,
                    }
                }
                AlterTableType::AT_EnableTrig => fires('O'),
                AlterTableType::AT_DisableTrig => fires('D'),
                AlterTableType::AT_EnableAlwaysTrig => fires('A'),
                AlterTableType::AT_EnableReplicaTrig => fires('R'),
                AlterTableType::AT_ChangeOwner => {
                    let of = match kind {
                        pg_sys::ObjectType::OBJECT_VIEW => Kind::View,
                        pg_sys::ObjectType::OBJECT_MATVIEW => Kind::MaterializedView,
                        pg_sys::ObjectType::OBJECT_SEQUENCE => Kind::Sequence,
                        pg_sys::ObjectType::OBJECT_INDEX => Kind::Index,
                        _ => Kind::Table,
                    };
                    Action::Owner {
                        target: Target {
                            kind: of,
                            name: table.clone(),
                            on: None,
                            arguments: None,
                        },
                        role: role(command.newowner),
                    }
                }
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
