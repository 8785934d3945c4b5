//! Numbers of a JSON text, as the element types of tensors.

use super::cursor::{Cursor, SyntaxError, SyntaxKind};

/// A number token, checked but not converted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number<'a> {
    /// Only digits, with a sign.
    Integer {
        /// Whether a minus sign is before it.
        negative: bool,
        /// Its magnitude; `None` when it does not fit.
        magnitude: Option<u64>,
        /// The token.
        text: &'a [u8],
    },
    /// With a fraction or an exponent: `mantissa × 10^exponent`.
    Decimal {
        /// Whether a minus sign is before it.
        negative: bool,
        /// Its digits without the point; `None` when they do not fit.
        mantissa: Option<u64>,
        /// Power of ten of the mantissa's last digit.
        exponent: i32,
        /// The token.
        text: &'a [u8],
    },
    /// `NaN`
    Nan,
    /// `Infinity` or `-Infinity`
    Infinity {
        /// Whether a minus sign is before it.
        negative: bool,
    },
}

/// Powers of ten that a double holds exactly.
const EXACT: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

impl<'a> Cursor<'a> {
    /// Reads a number token.
    #[inline]
    pub fn number(&mut self) -> Result<Number<'a>, SyntaxError> {
        self.peek();
        let text = self.text();
        let start = self.position();
        let bad = SyntaxError { at: start, kind: SyntaxKind::BadNumber };
        let truncated = SyntaxError { at: text.len(), kind: SyntaxKind::Truncated };
        let missing = |at: usize| if at < text.len() { bad } else { truncated };
        let mut at = start;
        let negative = text.get(at) == Some(&b'-');
        at += usize::from(negative);
        match text.get(at) {
            Some(b'N') if !negative => return self.word(b"NaN").map(|()| Number::Nan),
            Some(b'I') => {
                self.set_position(at);
                return self.word(b"Infinity").map(|()| Number::Infinity { negative });
            }
            Some(b'0'..=b'9') => {}
            _ if negative => return Err(missing(at)),
            _ => return Err(self.fail(SyntaxKind::InvalidValue)),
        }
        if text[at] == b'0' && matches!(text.get(at + 1), Some(b'0'..=b'9')) {
            return Err(bad);
        }
        let mut digits = Digits::default();
        at = digits.run(text, at);
        let mut exponent = 0_i32;
        let mut decimal = false;
        if text.get(at) == Some(&b'.') {
            decimal = true;
            let first = at + 1;
            at = digits.run(text, first);
            if at == first {
                return Err(missing(at));
            }
            exponent = -i32::try_from(at - first).unwrap_or(i32::MAX);
        }
        if matches!(text.get(at), Some(b'e' | b'E')) {
            decimal = true;
            at += 1;
            let minus = text.get(at) == Some(&b'-');
            at += usize::from(minus || text.get(at) == Some(&b'+'));
            let first = at;
            let mut power = 0_i32;
            while let Some(digit @ b'0'..=b'9') = text.get(at) {
                power = power.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
                at += 1;
            }
            if at == first {
                return Err(missing(at));
            }
            exponent = exponent.saturating_add(if minus { -power } else { power });
        }
        self.set_position(at);
        let (text, value) = (&text[start..at], digits.value());
        Ok(if decimal {
            Number::Decimal { negative, mantissa: value, exponent, text }
        } else {
            Number::Integer { negative, magnitude: value, text }
        })
    }
}

#[derive(Default)]
struct Digits {
    value: u64,
    overflowed: bool,
}

impl Digits {
    #[inline]
    fn run(&mut self, text: &[u8], mut at: usize) -> usize {
        while let Some(digit @ b'0'..=b'9') = text.get(at) {
            let digit = u64::from(digit - b'0');
            if self.value < 100_000_000_000_000_000 {
                self.value = self.value * 10 + digit;
            } else {
                match self.value.checked_mul(10).and_then(|v| v.checked_add(digit)) {
                    Some(value) => self.value = value,
                    None => self.overflowed = true,
                }
            }
            at += 1;
        }
        at
    }

    fn value(&self) -> Option<u64> {
        (!self.overflowed).then_some(self.value)
    }
}

impl Number<'_> {
    /// The nearest double; infinite when it is too large.
    #[inline]
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Nan => f64::NAN,
            Self::Infinity { negative } => signed(f64::INFINITY, negative),
            Self::Integer { negative, magnitude: Some(magnitude), .. } => signed(magnitude as f64, negative),
            Self::Decimal { negative, mantissa: Some(mantissa), exponent, .. }
                if mantissa <= 1 << 53 && (-22..=22).contains(&exponent) =>
            {
                // Both factors are exact, so the one operation rounds correctly (Clinger 1990).
                let power = EXACT[exponent.unsigned_abs() as usize];
                let mantissa = mantissa as f64;
                signed(if exponent < 0 { mantissa / power } else { mantissa * power }, negative)
            }
            Self::Integer { text, .. } | Self::Decimal { text, .. } => parse(text),
        }
    }

    /// The nearest single; infinite when it is too large.
    #[inline]
    pub fn to_f32(self) -> f32 {
        let double = self.to_f64();
        let tail = double.to_bits() & 0x1fff_ffff;
        // Rounding twice goes wrong only near the middle between two singles (or below the normal range).
        let near_tie = tail.abs_diff(0x1000_0000) <= 1 || double.abs() < f64::from(f32::MIN_POSITIVE) * 2.0;
        match self {
            Self::Integer { text, .. } | Self::Decimal { text, .. } if near_tie && double != 0.0 => {
                parse(text)
            }
            _ => double as f32,
        }
    }

    /// Whether it was written as `NaN` or an infinity.
    pub fn is_special(self) -> bool {
        matches!(self, Self::Nan | Self::Infinity { .. })
    }
}

fn signed(value: f64, negative: bool) -> f64 {
    if negative { -value } else { value }
}

#[cold]
fn parse<F: std::str::FromStr>(text: &[u8]) -> F {
    // A checked JSON number is ASCII and one that `FromStr` accepts; both hold by the scanner above.
    match std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()) {
        Some(value) => value,
        None => unreachable!("the scanner accepted a number that the standard library refuses"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Number<'_> {
        let mut cursor = Cursor::new(text.as_bytes());
        let number = cursor.number().unwrap();
        assert_eq!(cursor.position(), text.len(), "{text}");
        number
    }

    #[test]
    fn specials() {
        assert!(read("NaN").to_f64().is_nan());
        assert_eq!(read("Infinity").to_f32(), f32::INFINITY);
        assert_eq!(read("-Infinity").to_f64(), f64::NEG_INFINITY);
        assert!(read("-0").to_f64().is_sign_negative());
        assert!(read("-0.0").to_f32().is_sign_negative());
        for bad in ["-NaN", "+1", ".5", "-", "Nan", "inf", "--1", "0x1", "00", "-01"] {
            let mut cursor = Cursor::new(bad.as_bytes());
            assert!(cursor.number().is_err() || cursor.end().is_err(), "{bad}");
        }
    }

    #[test]
    fn hard_roundings() {
        for text in [
            "1.00000005960464477540",
            "1.000000059604644775390625",
            "1.000000059604644775390626",
            "1.000000178813934326171875",
            "16777217",
            "16777219",
            "9007199254740993",
            "123456789012345678901234567890",
            "1e-45",
            "7.006492321624085e-46",
            "1.17549435e-38",
            "3.4028235677973366e38",
            "3.4028235e38",
            "1e400",
            "4.9e-324",
            "0.1e-400",
            "2.2250738585072011e-308",
            "0.000000000000000000000000000000000000000000001e60",
        ] {
            assert_eq!(read(text).to_f32().to_bits(), text.parse::<f32>().unwrap().to_bits(), "{text}");
            assert_eq!(read(text).to_f64().to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn as_the_standard_library(
            text in "-?(0|[1-9][0-9]{0,21})(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?"
        ) {
            let number = read(&text);
            prop_assert_eq!(number.to_f64().to_bits(), text.parse::<f64>().unwrap().to_bits());
            prop_assert_eq!(number.to_f32().to_bits(), text.parse::<f32>().unwrap().to_bits());
        }

        #[test]
        fn singles_survive(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format!("{value:e}"), format!("{value}"), format!("{:.20e}", value)] {
                prop_assert_eq!(read(&text).to_f32().to_bits(), bits, "{}", text);
            }
        }
    }
}
