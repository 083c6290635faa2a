//! Starting, reaching, crashing and removing clusters.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use postgres::{Client, NoTls};

/// What a cluster is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines for postgresql.conf.
    pub settings: Vec<String>,
    /// Keep data safe against power loss (benchmarks); tests do without.
    pub durable: bool,
}

/// A running cluster of its own.
pub struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    watcher: Option<Child>,
    databases: AtomicUsize,
}

const PORT: u16 = 5432;

/// Stops and removes the cluster when its standard input ends, which it does when the process that started it is gone.
const WATCH: &str = r#"
cat >/dev/null
"$1/pg_ctl" stop -D "$2/data" -m immediate -s >/dev/null 2>&1
rm -rf "$2"
"#;

impl Cluster {
    /// Creates and starts one. Needs `MEND_PG_CONFIG` (see `dev/setup`).
    pub fn start(options: Options) -> Result<Cluster> {
        let cluster = Cluster::prepare()?;
        let data = cluster.data();
        cluster.run(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
        )?;
        let mut settings = vec![
            "listen_addresses = ''".to_string(),
            format!("unix_socket_directories = '{}'", cluster.folder.display()),
            format!("port = {PORT}"),
            "max_connections = 60".into(),
            // A rehearsal holds every lock of a script in one transaction.
            "max_locks_per_transaction = 128".into(),
            "log_min_messages = 'fatal'".into(),
            "max_wal_senders = 4".into(),
        ];
        if !options.durable {
            settings.extend([
                "fsync = off".to_string(),
                "synchronous_commit = off".into(),
                "full_page_writes = off".into(),
            ]);
        }
        settings.extend(options.settings);
        cluster.configure(&settings)?;
        cluster.up()?;
        let mut client = cluster.connect("postgres", "postgres")?;
        client.batch_execute("CREATE DATABASE template_mend")?;
        let mut client = cluster.connect("template_mend", "postgres")?;
        client.batch_execute("CREATE EXTENSION pg_mend")?;
        Ok(cluster)
    }

    fn prepare() -> Result<Cluster> {
        let config = std::env::var("MEND_PG_CONFIG")
            .context("MEND_PG_CONFIG is not set: run `dev/test` or `dev/demo`, or `eval \"$(dev/setup)\"` first")?;
        let bin = Command::new(&config)
            .arg("--bindir")
            .output()
            .with_context(|| format!("cannot run {config}"))?;
        let bin = PathBuf::from(String::from_utf8(bin.stdout)?.trim());
        // A short path: socket names are limited to about 100 bytes.
        let folder = tempfile::Builder::new().prefix("mend").tempdir_in("/tmp")?.keep();
        if is_root() {
            let id = |flag: &str| -> Result<u32> {
                let output = Command::new("id").args([flag, "postgres"]).output()?;
                String::from_utf8(output.stdout)?
                    .trim()
                    .parse()
                    .context("there is no system user \"postgres\"")
            };
            chown(&folder, Some(id("-u")?), Some(id("-g")?))?;
        }
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        let mut watcher = as_server_user("sh");
        watcher
            .args(["-c", WATCH, "sh"])
            .arg(&bin)
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Its own process group, so that Ctrl-C reaches us and not the watcher before it has cleaned up.
        std::os::unix::process::CommandExt::process_group(&mut watcher, 0);
        let watcher = watcher.spawn().context("cannot start the watcher")?;
        Ok(Cluster {
            folder,
            bin,
            watcher: Some(watcher),
            databases: AtomicUsize::new(0),
        })
    }

    /// A read-only copy of this cluster that follows it.
    pub fn standby(&self) -> Result<Cluster> {
        let copy = Cluster::prepare()?;
        let data = copy.data();
        let host = self.folder.display().to_string();
        let port = PORT.to_string();
        copy.run(
            "pg_basebackup",
            &[
                "-D",
                &data,
                "-h",
                &host,
                "-p",
                &port,
                "-U",
                "postgres",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
            ],
        )?;
        copy.configure(&[format!("unix_socket_directories = '{}'", copy.folder.display())])?;
        copy.up()?;
        Ok(copy)
    }

    /// Starts the server of a prepared or stopped cluster.
    pub fn up(&self) -> Result<()> {
        let log = self.folder.join("log").display().to_string();
        self.run("pg_ctl", &["start", "-D", &self.data(), "-l", &log, "-w", "-s"])
            .with_context(|| {
                std::fs::read_to_string(self.folder.join("log")).unwrap_or_else(|_| "no server log".into())
            })
    }

    /// Kills every process of the server at once, as a power cut would, and starts it again.
    pub fn crash(&self) -> Result<()> {
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        let pid: u32 = pid.lines().next().context("empty postmaster.pid")?.trim().parse()?;
        let children = Command::new("pgrep").args(["-P", &pid.to_string()]).output()?;
        let children = String::from_utf8(children.stdout)?;
        let mut kill = Command::new("kill");
        kill.args(["-9", &pid.to_string()]).args(children.split_whitespace());
        kill.stderr(Stdio::null()).status()?;
        // The next start waits for the shared memory of the dead to be gone.
        for _ in 0..100 {
            if self.up().is_ok() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        bail!("the server does not come up again after a crash")
    }

    /// Connects as `user`.
    pub fn connect(&self, database: &str, user: &str) -> Result<Client> {
        self.config(database, user)
            .connect(NoTls)
            .with_context(|| format!("cannot connect to {database} as {user}"))
    }

    /// How to connect as `user`.
    pub fn config(&self, database: &str, user: &str) -> postgres::Config {
        let mut config = postgres::Config::new();
        config.host_path(&self.folder).port(PORT).dbname(database).user(user);
        config
    }

    /// A new database with the extension in it.
    pub fn database(&self) -> Result<Database<'_>> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut client = self.connect("postgres", "postgres")?;
        client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template_mend"))?;
        Ok(Database { cluster: self, name })
    }

    /// A new database without the extension.
    pub fn empty_database(&self) -> Result<Database<'_>> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres", "postgres")?
            .batch_execute(&format!("CREATE DATABASE {name}"))?;
        Ok(Database { cluster: self, name })
    }

    /// Runs a program of this Postgres (psql, pg_dump ...) against `database`; returns what it printed, errors included.
    pub fn program(&self, program: &str, database: &str, arguments: &[&str], input: &str) -> Result<String> {
        use std::io::Write;
        let mut command = Command::new(self.bin.join(program));
        command.args([
            "-h",
            &self.folder.display().to_string(),
            "-p",
            &PORT.to_string(),
            "-U",
            "postgres",
            "-d",
            database,
        ]);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
        child
            .stdin
            .take()
            .context("no standard input")?
            .write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    }

    /// Does this Postgres have the extension `name` to offer?
    pub fn offers(&self, name: &str) -> Result<bool> {
        let mut client = self.connect("postgres", "postgres")?;
        Ok(!client
            .query("SELECT FROM pg_available_extensions WHERE name = $1", &[&name])?
            .is_empty())
    }

    fn configure(&self, settings: &[String]) -> Result<()> {
        let file = self.folder.join("data/postgresql.auto.conf");
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        // Written by root into a file of the server's user: the owner stays.
        std::fs::write(&file, old + "\n" + &settings.join("\n") + "\n").context("cannot write the configuration")
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let path = self.bin.join(program);
        let log = tempfile::tempfile()?;
        let mut command = as_server_user(&path.display().to_string());
        // The server inherits these: never a pipe, or whoever reads it waits as long as the server lives.
        let status = command
            .args(arguments)
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .stdin(Stdio::null())
            .status()?;
        if !status.success() {
            use std::io::{Read, Seek};
            let (mut log, mut text) = (log, String::new());
            log.rewind()?;
            log.read_to_string(&mut text)?;
            bail!("{program} failed: {text}");
        }
        Ok(())
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    /// The cluster's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
    }
}

/// A database that is dropped with the value.
pub struct Database<'a> {
    cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

impl<'a> Database<'a> {
    /// Connects as superuser.
    pub fn connect(&self) -> Client {
        self.connect_as("postgres")
    }

    /// Connects as `user`.
    pub fn connect_as(&self, user: &str) -> Client {
        self.cluster
            .connect(&self.name, user)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// How to connect as superuser, for who wants more than a plain session.
    pub fn config(&self) -> postgres::Config {
        self.cluster.config(&self.name, "postgres")
    }

    /// What psql prints for `input`.
    pub fn psql(&self, arguments: &[&str], input: &str) -> String {
        let all: Vec<&str> = ["-X", "-q"].iter().chain(arguments).copied().collect();
        self.cluster
            .program("psql", &self.name, &all, input)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The cluster that it is in.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if let Ok(mut client) = self.cluster.connect("postgres", "postgres") {
            let _ = client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

/// A command that runs as a user who may run servers.
fn as_server_user(program: &str) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", program]);
        command
    } else {
        Command::new(program)
    };
    // With it, every error of the extension would carry a Rust backtrace as DETAIL.
    command
        .env_remove("RUST_BACKTRACE")
        .env("LC_ALL", "C")
        .current_dir("/tmp");
    command
}
