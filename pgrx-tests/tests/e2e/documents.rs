//! The examples of the README and of docs/ produce what the pages show. `MEND_BLESS=1` writes the outputs anew.
//!
//! Each block ```` ```sql ```` is run, in order, in one database with the example loaded; a block ```` ```text ```` behind it
//! is its output (```` ```mermaid ````: its one value). `<!-- example: organizations -->` goes on in another database. Blocks ```` ```sh psql ```` are run by psql. Blocks ```` ```sql skip ```` are not run here (installation for real, pg_cron: see `places`).

use pgrx_tests::example::{load_ascora, load_organizations, load_party, load_properties, one};
use pgrx_tests::print;
use postgres::Client;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../");

fn output(client: &mut Client, sql: &str) -> String {
    match print::table(client, sql) {
        Ok(table) => table,
        Err(error) => match error.as_db_error() {
            Some(raised) => {
                let mut text = format!("ERROR:  {}", raised.message());
                for (label, part) in [("DETAIL", raised.detail()), ("HINT", raised.hint())] {
                    if let Some(part) = part {
                        text.push_str(&format!("\n{label}:  {part}"));
                    }
                }
                text
            }
            None => panic!("{error:?}"),
        },
    }
}

#[test]
fn the_examples_of_the_readme_produce_what_it_shows() {
    produces_what_it_shows("README.md");
}

#[test]
fn the_examples_of_the_details_produce_what_they_show() {
    produces_what_it_shows("docs/backfill.md");
}

#[test]
fn the_examples_of_locking_in_produce_what_they_show() {
    produces_what_it_shows("docs/locking-in.md");
}

#[test]
fn the_examples_of_migrations_produce_what_they_show() {
    produces_what_it_shows("docs/migrations.md");
}

fn produces_what_it_shows(page: &str) {
    let path = format!("{ROOT}{page}");
    let mut databases = vec![pgrx_tests::database()];
    let mut client = databases[0].connect();
    load_party(&mut client);
    let text = std::fs::read_to_string(&path).unwrap();
    let bless = std::env::var_os("MEND_BLESS").is_some();
    let mut blessed = String::new();
    let mut lines = text.lines().peekable();
    let mut compared = 0;
    while let Some(line) = lines.next() {
        blessed.push_str(line);
        blessed.push('\n');
        let load: Option<fn(&mut Client)> = match line {
            "<!-- example: organizations -->" => Some(load_organizations),
            "<!-- example: ascora -->" => Some(load_ascora),
            "<!-- example: party -->" => Some(load_party),
            "<!-- example: properties -->" => Some(load_properties),
            _ => None,
        };
        if let Some(load) = load {
            databases.push(pgrx_tests::database());
            client = databases[databases.len() - 1].connect();
            load(&mut client);
        }
        // psql itself, with a file of the examples.
        let psql = line == "```sh psql";
        if line != "```sql" && !psql {
            continue;
        }
        let mut sql = String::new();
        for line in lines.by_ref() {
            blessed.push_str(line);
            blessed.push('\n');
            if line == "```" {
                break;
            }
            sql.push_str(line);
            sql.push('\n');
        }
        let got = match sql.trim().strip_prefix("psql -f ").filter(|_| psql) {
            Some(file) => {
                let file = format!("{ROOT}{file}");
                let printed = databases[databases.len() - 1].psql(&["-f", &file], "");
                let root = std::fs::canonicalize(ROOT).unwrap();
                let printed = printed.replace(&format!("{}/", root.display()), "");
                printed.replace(ROOT, "").trim_end().to_string()
            }
            None => output(&mut client, &sql),
        };
        while let Some(blank) = lines.next_if(|line| line.is_empty()) {
            blessed.push_str(blank);
            blessed.push('\n');
        }
        if lines.next_if(|line| *line == "```text").is_some() {
            let shown: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blessed.push_str(&format!("```text\n{got}\n```\n"));
            compared += 1;
            if !bless {
                assert_eq!(shown.join("\n"), got, "{page}, output of\n{sql}");
            }
        } else if lines.next_if(|line| *line == "```mermaid").is_some() {
            // One value, drawn by whoever shows the page.
            let drawn = one(&mut client, &sql);
            let shown: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blessed.push_str(&format!("```mermaid\n{drawn}\n```\n"));
            compared += 1;
            if !bless {
                assert_eq!(shown.join("\n"), drawn, "{page}, output of\n{sql}");
            }
        } else {
            assert!(!got.starts_with("ERROR"), "{sql}\n{got}");
        }
    }
    assert!(compared >= 4, "{page} shows no outputs: was its form changed?");
    if bless {
        std::fs::write(&path, blessed).unwrap();
    }
}
