//! Numbers as a person reads them.

/// A count with a comma before every three digits.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with three digits and a unit, for where there is little room: `6.57 M`.
pub(crate) fn short(count: f64) -> String {
    let units = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    // What rounds to a thousand has the next unit.
    let unit = units.into_iter().find(|(size, _)| count >= 0.9995 * size);
    let (size, unit) = unit.unwrap_or((1.0, ""));
    format!("{}{unit}", significant(count / size, 3))
}

/// A number with up to four significant digits.
pub(crate) fn value(value: f64) -> String {
    significant(value, 4)
}

/// A number with up to `digits` significant digits, of which those at the end are no zeros.
pub(crate) fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "not finite".to_string();
    }
    if value == 0.0 {
        return "0".to_string();
    }
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    match exponent {
        -4..6 => {
            let decimals = i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent;
            let decimals = usize::try_from(decimals).unwrap_or(0);
            let rounded: f64 = scientific.parse().unwrap_or(value);
            trimmed(&format!("{rounded:.decimals$}")).to_string()
        }
        _ => format!("{}e{exponent}", trimmed(mantissa)),
    }
}

fn trimmed(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// A number with its sign, and four significant digits.
pub(crate) fn signed(number: f64) -> String {
    match number > 0.0 {
        true => format!("+{}", value(number)),
        false => value(number),
    }
}

/// A fraction in percent.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// Seconds with a unit.
pub(crate) fn duration(seconds: f64) -> String {
    let (scale, unit) = match seconds {
        seconds if seconds >= 1.0 => (1.0, "s"),
        seconds if seconds >= 1e-3 => (1e3, "ms"),
        _ => (1e6, "µs"),
    };
    format!("{} {unit}", significant(seconds * scale, 3))
}

/// A shape.
pub(crate) fn shape(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    sizes.join("×")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let grouped = [0, 999, 1_000, 6_573_312].map(count);
        assert_eq!(grouped, ["0", "999", "1,000", "6,573,312"]);
    }

    #[test]
    fn short_counts_have_three_digits() {
        let numbers = [
            0.0,
            13.0,
            999.0,
            1_000.0,
            29_662.0,
            999_600.0,
            6_573_312.0,
            2.5e9,
        ];
        let expected = ["0", "13", "999", "1 k", "29.7 k", "1 M", "6.57 M", "2.5 G"];
        assert_eq!(numbers.map(short), expected);
    }

    #[test]
    fn values_keep_four_digits() {
        let numbers = [
            0.5,
            1.0 / 3.0,
            97.5,
            1e-3,
            2.34567e-7,
            -12.34567,
            1234567.0,
            0.0,
        ];
        let expected = [
            "0.5", "0.3333", "97.5", "0.001", "2.346e-7", "-12.35", "1.235e6", "0",
        ];
        assert_eq!(numbers.map(value), expected);
        assert_eq!(value(f64::NAN), "not finite");
        assert_eq!([0.25, -0.25, 0.0].map(signed), ["+0.25", "-0.25", "0"]);
    }

    #[test]
    fn digits_are_rounded_before_the_point_as_well() {
        let numbers = [127.5, 12.75, 0.1275, 99_999.0].map(|value| significant(value, 2));
        assert_eq!(numbers, ["130", "13", "0.13", "100000"]);
    }

    #[test]
    fn times_have_a_unit() {
        let times = [2.0, 0.0123, 4.567e-5].map(duration);
        assert_eq!(times, ["2 s", "12.3 ms", "45.7 µs"]);
    }
}
