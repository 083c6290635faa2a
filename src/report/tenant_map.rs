//! `tenant_map`: the tables from the root downwards, as a Mermaid flowchart or a tree of text. Pure.

use std::collections::{HashMap, HashSet};

use super::tenant_columns::{Status, TenantColumn};
use crate::problem::Problem;

/// How the map is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A flowchart for mermaid.js.
    Mermaid,
    /// Text with branches.
    Tree,
}

impl std::str::FromStr for Format {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match text {
            "mermaid" => Ok(Format::Mermaid),
            "tree" => Ok(Format::Tree),
            other => Err(Problem::new(
                pgrx::PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("format cannot be \"{other}\""),
            )
            .detail("it is one of 'mermaid', 'tree'")
            .hint("SELECT tenant_map(format => 'tree')")),
        }
    }
}

/// Fill colours: red is to do, amber is half-way, green is done.
const COLOURS: [(Status, &str); 9] = [
    (Status::Root, "fill:#1f3a5f,stroke:#1f3a5f,color:#ffffff"),
    (Status::Ready, "fill:#d8f3dc,stroke:#2d6a4f,color:#081c15"),
    (Status::Nullable, "fill:#eaf7c4,stroke:#6a8f1f,color:#1f2a08"),
    (Status::Unconstrained, "fill:#fff3bf,stroke:#b08900,color:#3d2f00"),
    (Status::NeedsBackfill, "fill:#ffe3c2,stroke:#c05600,color:#3d1c00"),
    (Status::NeedsColumn, "fill:#ffd6d6,stroke:#b00020,color:#3d0008"),
    (Status::Unreachable, "fill:#f3d1ff,stroke:#7b1fa2,color:#2b0639"),
    (Status::Ambiguous, "fill:#f3d1ff,stroke:#7b1fa2,color:#2b0639"),
    (Status::Shared, "fill:#eeeeee,stroke:#888888,color:#333333"),
];

/// One table of the map.
struct Node<'a> {
    row: &'a TenantColumn,
    /// Every key of the table.
    keys: Vec<&'a TenantColumn>,
    /// What it hangs on: the node, and the columns that lead there.
    above: Option<(usize, String)>,
    /// Other parents that lead to the tenant.
    others: Vec<(usize, String)>,
}

/// Draws the report.
pub fn tenant_map(rows: &[TenantColumn], format: Format) -> String {
    let nodes = nodes(rows);
    match format {
        Format::Mermaid => mermaid(&nodes),
        Format::Tree => tree(&nodes),
    }
}

fn nodes(rows: &[TenantColumn]) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut at: HashMap<u32, usize> = HashMap::new();
    for row in rows {
        match at.get(&row.oid) {
            Some(node) => nodes[*node].keys.push(row),
            None => {
                at.insert(row.oid, nodes.len());
                nodes.push(Node {
                    row,
                    keys: vec![row],
                    above: None,
                    others: vec![],
                });
            }
        }
    }
    let root = nodes.iter().position(|node| node.row.status == Status::Root);
    let all = 0..nodes.len();
    for i in all.clone() {
        let parents: Vec<(usize, String)> = nodes[i]
            .keys
            .iter()
            .flat_map(|row| row.parents.iter())
            .filter_map(|(parent, columns)| Some((*at.get(parent)?, columns.clone())))
            .filter(|(parent, _)| *parent != i)
            .collect();
        let direct = nodes[i]
            .row
            .column
            .clone()
            .zip(root)
            .map(|(column, root)| (root, column));
        let mut parents = parents.into_iter();
        let connected = Some(i) != root && nodes[i].row.status != Status::Shared;
        nodes[i].above = parents.next().or(direct).filter(|_| connected);
        nodes[i].others = parents.collect();
    }
    // Tables that hang on each other in a circle hang on the root by their own key, if they have one.
    for i in all {
        let mut seen = HashSet::from([i]);
        let mut next = nodes[i].above.as_ref().map(|(above, _)| *above);
        while let Some(above) = next {
            if !seen.insert(above) {
                nodes[i].above = nodes[i]
                    .row
                    .column
                    .clone()
                    .zip(root)
                    .map(|(column, root)| (root, column));
                break;
            }
            next = nodes[above].above.as_ref().map(|(above, _)| *above);
        }
    }
    nodes
}

/// Key, rows and fill of a table in a few words.
fn facts(node: &Node) -> Vec<String> {
    let mut facts = Vec::new();
    for key in &node.keys {
        if let Some(column) = &key.column {
            facts.push(format!("{column}: {}", key.status.as_str()));
        }
    }
    if node.row.column.is_none() {
        facts.push(node.row.status.as_str().into());
    }
    let rows = node.row.estimated_rows.map(|rows| format!("~{rows} rows"));
    let open = node.keys.iter().any(|key| key.status == Status::NeedsBackfill);
    // Rounded down, so that it says 100 % only of what is complete as far as ANALYZE saw.
    let filled = node
        .row
        .filled
        .filter(|_| open)
        .map(|share| format!("~{} % filled", (share * 100.0).floor()));
    let numbers: Vec<String> = rows.into_iter().chain(filled).collect();
    if !numbers.is_empty() {
        facts.push(numbers.join(", "));
    }
    facts
}

/// Up to this many tables, further paths are drawn as dotted edges; beyond, they cross everything, and are named in the
/// table instead.
const FEW: usize = 20;

/// What mermaid.js draws unless it is configured otherwise (its defaults `maxTextSize` and `maxEdges`).
const MOST_TEXT: usize = 50_000;
const MOST_EDGES: usize = 500;

fn mermaid(nodes: &[Node]) -> String {
    let dotted = nodes.len() <= FEW;
    let node = |i: usize| {
        let node = &nodes[i];
        let mut parts = vec![format!("<b>{}</b>", escaped(&node.row.table))];
        parts.extend(facts(node).iter().map(|fact| escaped(fact)));
        if !dotted {
            let also = node
                .others
                .iter()
                .map(|(other, by)| format!("also by {by} to {}", nodes[*other].row.table));
            parts.extend(also.map(|also| escaped(&also)));
        }
        format!("t{i}[\"{}\"]:::{}", parts.join("<br/>"), class(node.row.status))
    };
    let (below, apart) = downwards(nodes);
    let mut lines: Vec<String> = below.iter().map(|i| format!("  {}", node(*i))).collect();
    if !apart.is_empty() {
        lines.push("  subgraph apart[\"without a path to the tenant\"]".into());
        lines.extend(apart.iter().map(|i| format!("    {}", node(*i))));
        lines.push("  end".into());
    }
    let mut edges = Vec::new();
    for i in below.iter().chain(&apart) {
        if let Some((above, columns)) = &nodes[*i].above {
            edges.push(format!("  t{above} -->|\"{}\"| t{i}", escaped(columns)));
        }
    }
    for i in below.iter().filter(|_| dotted) {
        for (other, columns) in &nodes[*i].others {
            edges.push(format!("  t{other} -.->|\"{}\"| t{i}", escaped(columns)));
        }
    }
    let (count, length) = (edges.len(), lines.iter().chain(&edges).map(String::len).sum::<usize>());
    let mut all = vec!["flowchart LR".to_string()];
    if count > MOST_EDGES || length > MOST_TEXT {
        all.push(format!(
            "%% larger than Mermaid draws by default: set maxEdges to {} and maxTextSize to {}, or ask for format 'tree'",
            count + 1,
            2 * length
        ));
    }
    all.extend(lines);
    all.extend(edges);
    for (status, style) in COLOURS {
        if nodes.iter().any(|node| node.row.status == status) {
            all.push(format!("  classDef {} {style}", class(status)));
        }
    }
    all.join("\n")
}

/// The tables from the root downwards, each before what hangs on it (Mermaid's layout keeps that order and so crosses
/// few lines), and those that are not reached.
fn downwards(nodes: &[Node]) -> (Vec<usize>, Vec<usize>) {
    let mut below: HashMap<usize, Vec<usize>> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        if let Some((above, _)) = &node.above {
            below.entry(*above).or_default().push(i);
        }
    }
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    let root = nodes.iter().position(|node| node.row.status == Status::Root);
    let mut next: Vec<usize> = root.into_iter().collect();
    while let Some(at) = next.pop() {
        if seen.insert(at) {
            order.push(at);
            next.extend(below.get(&at).into_iter().flatten().rev());
        }
    }
    let apart = (0..nodes.len()).filter(|i| !seen.contains(i)).collect();
    (order, apart)
}

/// Not the bare status: Mermaid uses `root` as a class of its own, and every label would take its colours.
fn class(status: Status) -> String {
    format!("is_{}", status.as_str())
}

/// Text inside of a quoted Mermaid label: its own letters as character references.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | '_' | '.' | ',' | ':' | '-' | '~' | '%' | '(' | ')' => {
                escaped.push(letter);
            }
            c if c.is_alphanumeric() => escaped.push(c),
            c => escaped.push_str(&format!("#{};", u32::from(c))),
        }
    }
    escaped
}

fn tree(nodes: &[Node]) -> String {
    let mut lines = Vec::new();
    let mut shown = HashSet::new();
    if let Some(root) = nodes.iter().position(|node| node.row.status == Status::Root) {
        lines.push(format!(
            "{}  ({})",
            nodes[root].row.table,
            facts(&nodes[root]).join("; ")
        ));
        shown.insert(root);
        branches(nodes, root, "", &mut shown, &mut lines);
    }
    let apart: Vec<usize> = (0..nodes.len()).filter(|i| !shown.contains(i)).collect();
    if !apart.is_empty() {
        lines.push("without a path to the tenant:".into());
        for i in apart {
            lines.push(format!("  {}  ({})", nodes[i].row.table, facts(&nodes[i]).join("; ")));
        }
    }
    let lines: Vec<String> = lines.iter().map(|line| one_line(line)).collect();
    lines.join("\n")
}

/// A name may hold line breaks; a line of the tree holds none, or it could show tables that are not there.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        })
        .collect()
}

fn branches(nodes: &[Node], at: usize, indent: &str, shown: &mut HashSet<usize>, lines: &mut Vec<String>) {
    let below: Vec<(usize, &str)> = nodes
        .iter()
        .enumerate()
        .filter_map(|(i, node)| {
            node.above
                .as_ref()
                .filter(|(above, _)| *above == at)
                .map(|(_, by)| (i, by.as_str()))
        })
        .collect();
    for (n, (i, by)) in below.iter().enumerate() {
        if !shown.insert(*i) {
            continue;
        }
        let last = n + 1 == below.len();
        let mut facts = facts(&nodes[*i]);
        facts.extend(
            nodes[*i]
                .others
                .iter()
                .map(|(other, by)| format!("also by {by} to {}", nodes[*other].row.table)),
        );
        lines.push(format!(
            "{indent}{} {}  by {by}  ({})",
            if last { "└──" } else { "├──" },
            nodes[*i].row.table,
            facts.join("; ")
        ));
        let deeper = format!("{indent}{}   ", if last { " " } else { "│" });
        branches(nodes, *i, &deeper, shown, lines);
    }
}
