//! What a type itself refuses: too long, out of range, more digits than it stores.

use crate::catalog::{Type, numeric_modifier};

/// The condition under which a column of this type refuses `value`, and the name of the type; `None`: it refuses nothing. NULL where the
/// value is.
///
/// * `value`: of the same family (a string for a string, a number for a number).
/// * `modifier`: as pg_attribute has it; -1: none.
///
/// ```text
/// varchar(3)     more than three letters
/// char(3)        more than three letters, blanks at the end left out
/// smallint       not between -32768 and 32767
/// numeric(3,1)   99.95 and more; what would be rounded
/// ```
pub fn misfit(base: &Type, modifier: i32, value: &str) -> Option<(String, String)> {
    if let Some((least, most)) = base.integer_range() {
        return Some((format!("{value} NOT BETWEEN {least} AND {most}"), base.display.clone()));
    }
    // pg_type.h: the modifier of varchar(n) and char(n) is n + 4.
    let length = modifier - 4;
    match base.name.as_str() {
        _ if !base.is_built_in() || length < 1 => None,
        "varchar" => Some((
            format!("pg_catalog.char_length({value}::pg_catalog.text) > {length}"),
            base.with_modifier(modifier),
        )),
        "bpchar" => Some((
            format!("pg_catalog.char_length(pg_catalog.rtrim({value}::pg_catalog.text, ' ')) > {length}"),
            base.with_modifier(modifier),
        )),
        "numeric" => {
            let (precision, scale) = numeric_modifier(modifier);
            let number = format!("({value})::pg_catalog.numeric");
            Some((
                format!(
                    "({number} <> 'NaN' AND (pg_catalog.abs({number}) >= 10::pg_catalog.numeric ^ ({}) OR pg_catalog.round({number}, {scale}) <> {number}))",
                    precision - scale
                ),
                base.with_modifier(modifier),
            ))
        }
        _ => None,
    }
}
