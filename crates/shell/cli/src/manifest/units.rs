//! Amounts as people write them: `250m`, `64Mi`.

/// Examples for an amount of processor time.
pub(crate) const CPU_FORMS: &str = "write it like `250m` (a quarter of a core), `0.5` or `2`";
/// Examples for an amount of memory.
pub(crate) const MEMORY_FORMS: &str = "write it like `64Mi`, `1Gi`, `500M` or a number of bytes";

/// Binary units first: `Mi` must not be read as `M` followed by rubbish.
const MEMORY_UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a form that we know.
    #[error("`{text}` is not an amount of {what}: {forms}")]
    Form {
        /// What was given.
        text: String,
        /// `cpu` or `memory`.
        what: &'static str,
        /// Examples.
        forms: &'static str,
    },
    /// Nearly a form that we know.
    #[error("`{text}` is not an amount of {what}; did you mean `{meant}`?")]
    Near {
        /// What was given.
        text: String,
        /// `cpu` or `memory`.
        what: &'static str,
        /// The nearest right form.
        meant: String,
    },
    /// More parts of a unit than there are.
    #[error("`{text}` is not a whole number of {unit}: {forms}")]
    Fraction {
        /// What was given.
        text: String,
        /// The smallest unit.
        unit: &'static str,
        /// Examples.
        forms: &'static str,
    },
}

/// A decimal number times `scale`, where that is whole.
fn scaled(number: &str, scale: u64) -> Option<Result<u64, ()>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return None;
    }
    // 18 digits and 16 Ti stay far below u128.
    if whole.len() > 18 || fraction.len() > 18 {
        return None;
    }
    let parse = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let (whole, part) = (parse(whole)?, parse(fraction)?);
    let power = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let total = (whole * power + part) * u128::from(scale);
    if total % power != 0 {
        return Some(Err(()));
    }
    Some(u64::try_from(total / power).map_err(|_| ()))
}

/// Reads an amount of processor time, in thousandths of a core.
pub fn cpu(text: &str) -> Result<u64, UnitError> {
    let form = || UnitError::Form { text: super::start_of(text), what: "cpu", forms: CPU_FORMS };
    let fraction = || UnitError::Fraction {
        text: super::start_of(text),
        unit: "thousandths of a core",
        forms: CPU_FORMS,
    };
    let (number, scale) = match text.strip_suffix('m') {
        Some(number) => (number, 1),
        None => (text, 1000),
    };
    match scaled(number, scale) {
        Some(Ok(amount)) => Ok(amount),
        Some(Err(())) => Err(fraction()),
        None => match text.strip_suffix('M').and_then(|number| scaled(number, 1)) {
            Some(Ok(amount)) => {
                Err(UnitError::Near { text: super::start_of(text), what: "cpu", meant: format!("{amount}m") })
            }
            _ => Err(form()),
        },
    }
}

/// Reads an amount of memory, in bytes.
pub fn memory(text: &str) -> Result<u64, UnitError> {
    let form = || UnitError::Form { text: super::start_of(text), what: "memory", forms: MEMORY_FORMS };
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = if unit.is_empty() {
        Some(1)
    } else {
        MEMORY_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale)
    };
    let Some(scale) = scale else {
        let near = scaled(number, 1 << 40).and_then(|_| meant(unit));
        return Err(near.map_or_else(form, |unit| UnitError::Near {
            text: super::start_of(text),
            what: "memory",
            meant: format!("{number}{unit}"),
        }));
    };
    match scaled(number, scale) {
        Some(Ok(amount)) => Ok(amount),
        Some(Err(())) => {
            Err(UnitError::Fraction { text: super::start_of(text), unit: "bytes", forms: MEMORY_FORMS })
        }
        None => Err(form()),
    }
}

/// The unit that was meant by a near one: `mi`, `MB`, `MiB`, `m`.
fn meant(unit: &str) -> Option<&'static str> {
    let unit = unit.trim().to_ascii_lowercase();
    Some(match unit.as_str() {
        "ki" | "kib" => "Ki",
        "mi" | "mib" | "m" => "Mi",
        "gi" | "gib" | "g" => "Gi",
        "ti" | "tib" | "t" => "Ti",
        "k" | "kb" => "K",
        "mb" => "M",
        "gb" => "G",
        "tb" => "T",
        _ => return None,
    })
}

/// An amount of processor time as people read it: `250m`, `2`.
pub fn show_cpu(cpu_m: u64) -> String {
    if cpu_m.is_multiple_of(1000) { (cpu_m / 1000).to_string() } else { format!("{cpu_m}m") }
}

/// An amount of memory as a manifest would say it, exactly: two that differ are shown differently.
pub fn show_memory(bytes: u64) -> String {
    let exact = |(_, scale): &&(&str, u64)| bytes >= *scale && bytes.is_multiple_of(*scale);
    match MEMORY_UNITS[..4].iter().rev().find(exact) {
        Some((name, scale)) => format!("{}{name}", bytes / scale),
        None => bytes.to_string(),
    }
}

/// An amount of bytes as people read it at a glance: at most one decimal.
pub fn show_bytes(bytes: u64) -> String {
    let Some((name, scale)) = MEMORY_UNITS[..4].iter().rev().find(|(_, scale)| bytes >= *scale) else {
        return bytes.to_string();
    };
    let tenths = u128::from(bytes) * 10 / u128::from(*scale);
    if tenths.is_multiple_of(10) {
        format!("{}{name}", tenths / 10)
    } else {
        format!("{}.{}{name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_as_thousandths_of_a_core() {
        for (text, amount) in [
            ("250m", 250),
            ("1", 1000),
            ("0.25", 250),
            ("2.5", 2500),
            ("0", 0),
            ("1.050", 1050),
            ("0.001", 1),
        ] {
            assert_eq!(cpu(text), Ok(amount), "{text}");
        }
    }

    #[test]
    fn memory_is_read_as_bytes() {
        for (text, amount) in [
            ("1024", 1024),
            ("64Ki", 64 << 10),
            ("64Mi", 64 << 20),
            ("1Gi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("2Ti", 2 << 40),
            ("1K", 1000),
            ("500M", 500_000_000),
            ("1G", 1_000_000_000),
        ] {
            assert_eq!(memory(text), Ok(amount), "{text}");
        }
    }

    #[test]
    fn a_wrong_unit_is_answered_with_the_right_one() {
        for (text, message) in [
            ("64mi", "`64mi` is not an amount of memory; did you mean `64Mi`?"),
            ("64MB", "`64MB` is not an amount of memory; did you mean `64M`?"),
            ("64MiB", "`64MiB` is not an amount of memory; did you mean `64Mi`?"),
            ("64m", "`64m` is not an amount of memory; did you mean `64Mi`?"),
            ("64 Mi", "`64 Mi` is not an amount of memory; did you mean `64Mi`?"),
            (
                "lots",
                "`lots` is not an amount of memory: write it like `64Mi`, `1Gi`, `500M` or a number of bytes",
            ),
            (
                "-5",
                "`-5` is not an amount of memory: write it like `64Mi`, `1Gi`, `500M` or a number of bytes",
            ),
            ("", "`` is not an amount of memory: write it like `64Mi`, `1Gi`, `500M` or a number of bytes"),
            (
                "0.3",
                "`0.3` is not a whole number of bytes: write it like `64Mi`, `1Gi`, `500M` or a number of bytes",
            ),
        ] {
            assert_eq!(memory(text).unwrap_err().to_string(), message);
        }
        for (text, message) in [
            ("250M", "`250M` is not an amount of cpu; did you mean `250m`?"),
            (
                "fast",
                "`fast` is not an amount of cpu: write it like `250m` (a quarter of a core), `0.5` or `2`",
            ),
            (
                "0.0001",
                "`0.0001` is not a whole number of thousandths of a core: write it like `250m` (a quarter of a core), `0.5` or `2`",
            ),
            (
                "0.5m",
                "`0.5m` is not a whole number of thousandths of a core: write it like `250m` (a quarter of a core), `0.5` or `2`",
            ),
        ] {
            assert_eq!(cpu(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_amount_that_overflows_is_an_error_and_not_a_small_number() {
        assert!(memory("99999999999999Ti").is_err());
        assert!(memory("9999999999999999999999").is_err());
        assert!(cpu("99999999999999999999").is_err());
    }

    #[test]
    fn amounts_are_shown_as_they_are_written() {
        assert_eq!(show_cpu(250), "250m");
        assert_eq!(show_cpu(2000), "2");
        assert_eq!(show_memory(64 << 20), "64Mi");
        assert_eq!(show_memory(3 << 29), "1536Mi");
        assert_eq!(show_memory((1 << 30) + 5), "1073741829");
        assert_eq!(show_bytes(3 << 29), "1.5Gi");
        assert_eq!(show_bytes((1 << 30) + 5), "1Gi");
        assert_eq!(show_bytes(999), "999");
        assert_eq!(show_memory(999), "999");
        assert_eq!(show_memory(0), "0");
    }
}
