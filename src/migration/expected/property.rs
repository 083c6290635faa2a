//! What is said of objects.

use super::Id;
use crate::pg::ast::{Expression, TypeName};
use crate::script::ast::{
    ConstraintDefinition, DomainDefinition, FunctionDefinition, IndexDefinition, Name, PartitionKey, PolicyDefinition,
    SequenceOption, SequenceValue, TriggerDefinition,
};

/// One property that the script gives an object. A later property of the same kind replaces an earlier one.
#[derive(Debug, Clone)]
pub enum Property {
    /// Type of a column, and its collation.
    Type(TypeName, Option<Name>),
    /// NOT NULL.
    NotNull(bool),
    /// DEFAULT.
    Default(Option<Expression>),
    /// A sequence of its own.
    Serial,
    /// GENERATED ALWAYS AS (...).
    Generated(Expression),
    /// VIRTUAL, or STORED.
    Virtual(bool),
    /// IDENTITY.
    Identity(Option<char>),
    /// Of a constraint; of a foreign key with the parent.
    Constraint(ConstraintDefinition, Option<Id>),
    /// VALIDATE.
    Valid,
    /// Of an index.
    Index(IndexDefinition),
    /// Of a function.
    Function(FunctionDefinition),
    /// Of a trigger.
    Trigger(TriggerDefinition),
    /// Of a policy.
    Policy(PolicyDefinition),
    /// Of a view.
    View(Expression, Vec<String>),
    /// Of an enum.
    Labels(Vec<String>),
    /// Of a domain.
    Domain(DomainDefinition),
    /// Of a composite type: names, types and collations.
    Attributes(Vec<(String, TypeName, Option<Name>)>),
    /// PARTITION BY; `None`: it is not partitioned.
    PartitionKey(Option<PartitionKey>),
    /// It is a partition of this, with this bound; `None`: of none.
    Partition(Option<(Parent, Expression)>),
    /// It inherits from these, in order; partitions aside.
    Inherits(Vec<Parent>),
    /// As in `pg_trigger.tgenabled`.
    Firing(char),
    /// OWNER TO.
    Owner(String),
    /// An option of a sequence, see `SequenceSetting`.
    Sequence(SequenceOption, SequenceValue),
    /// ENABLE, DISABLE ROW LEVEL SECURITY.
    RowSecurity(bool),
    /// FORCE, NO FORCE.
    Force(bool),
    /// COMMENT.
    Comment(Option<String>),
}

impl Property {
    /// What it speaks of: a later one of the same slot takes its place.
    pub fn slot(&self) -> &'static str {
        match self {
            Property::Type(..) => "type",
            Property::NotNull(_) => "NOT NULL",
            // An identity takes the place of a default.
            Property::Default(_) | Property::Serial | Property::Identity(_) => "default",
            Property::Generated(_) => "generated",
            Property::Virtual(_) => "virtual",
            Property::Valid => "valid",
            Property::RowSecurity(_) => "row-level security",
            Property::Force(_) => "forced row-level security",
            Property::Comment(_) => "comment",
            Property::Labels(_) => "labels",
            Property::PartitionKey(_) => "partition key",
            Property::Partition(_) => "partition",
            Property::Inherits(..) => "inheritance",
            Property::Firing(_) => "firing",
            Property::Owner(_) => "owner",
            Property::Sequence(option, _) => match option {
                SequenceOption::Type => "type",
                SequenceOption::Increment => "increment",
                SequenceOption::Minimum => "minimum",
                SequenceOption::Maximum => "maximum",
                SequenceOption::Start => "start",
                SequenceOption::Cache => "cache",
                SequenceOption::Cycle => "cycle",
                SequenceOption::Owner => "owned by",
            },
            _ => "definition",
        }
    }
}

/// A table as a step names it, and which object of the script that is.
#[derive(Debug, Clone)]
pub struct Parent {
    /// As written.
    pub name: Name,
    /// Its number.
    pub id: Id,
}
