//! Settings that decide what a statement means, and how values look as texts: plain data, for those who write statements and those who run
//! them.

/// Settings of the caller that differ from those under which our statements are planned, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallersSettings(pub Vec<(&'static str, String)>);

impl CallersSettings {
    /// Without those that decide how values look as texts: for statements whose texts are kept.
    pub fn with_exact_texts(&self) -> CallersSettings {
        let exact = |name: &str| EXACT_TEXTS.iter().any(|(of_texts, _)| *of_texts == name);
        CallersSettings(self.0.iter().filter(|(name, _)| !exact(name)).cloned().collect())
    }

    /// Does the caller see values as other texts than we do?
    pub fn texts_differ(&self) -> bool {
        let of_texts = |name: &str| EXACT_TEXTS.iter().any(|(exact, _)| *exact == name);
        self.0.iter().any(|(name, _)| of_texts(name))
    }

    /// As `Settings::push` takes them.
    pub fn as_pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

/// Settings under which a text that Postgres writes of a value gives that value again, whatever the session has set. How dates are read
/// (the order of day and month), and in which time zone, stays as the caller has it: texts of ISO say both.
pub const EXACT_TEXTS: [(&str, &str); 8] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("array_nulls", "on"),
    ("quote_all_identifiers", "off"),
];

/// Where names in our own SQL are looked up.
pub const SAFE_PATH: &str = "pg_catalog, pg_temp";
