//! The README's examples produce what the README shows. `MEND_BLESS=1` writes the outputs anew.
//!
//! Each block ```` ```sql ```` is run, in order, in one database with the example loaded; a block ```` ```text ```` behind it
//! is its output. Blocks ```` ```sql skip ```` are not run here (installation for real, pg_cron: see `places`).

use pgrx_tests::example::load_party;
use pgrx_tests::print;
use postgres::Client;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

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
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_party(&mut client);
    let text = std::fs::read_to_string(README).unwrap();
    let bless = std::env::var_os("MEND_BLESS").is_some();
    let mut blessed = String::new();
    let mut lines = text.lines().peekable();
    let mut compared = 0;
    while let Some(line) = lines.next() {
        blessed.push_str(line);
        blessed.push('\n');
        if line != "```sql" {
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
        let got = output(&mut client, &sql);
        while let Some(blank) = lines.next_if(|line| line.is_empty()) {
            blessed.push_str(blank);
            blessed.push('\n');
        }
        if lines.next_if(|line| *line == "```text").is_some() {
            let shown: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blessed.push_str(&format!("```text\n{got}\n```\n"));
            compared += 1;
            if !bless {
                assert_eq!(shown.join("\n"), got, "README, output of\n{sql}");
            }
        } else {
            assert!(!got.starts_with("ERROR"), "{sql}\n{got}");
        }
    }
    assert!(compared >= 5, "the README shows no outputs: was its form changed?");
    if bless {
        std::fs::write(README, blessed).unwrap();
    }
}
