//! Amounts: integers of a unit, never floats. Money is whole nano-dollars, shown as exact decimals.

use std::fmt;

/// Nano-dollars in a US dollar.
pub const NANOS_PER_USD: u64 = 1_000_000_000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// US dollars, in nano-dollars.
    Usd,
    /// Input and output tokens together.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
    /// Requests.
    Requests,
    /// Requests at a time.
    Places,
}

impl Unit {
    /// The unit as answers name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usd => "usd",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Requests => "requests",
            Self::Places => "places",
        }
    }

    /// The unit of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Usd, Self::Tokens, Self::InputTokens, Self::OutputTokens, Self::Requests, Self::Places];
        all.into_iter().find(|unit| unit.as_str() == name)
    }

    /// `amount` as a decimal: dollars for money, else whole numbers.
    #[must_use]
    pub const fn show(self, amount: Amount) -> Shown {
        Shown { amount, unit: self }
    }

    /// A sum of amounts and of what was given back, as a decimal: it may be below zero, and beyond [`Amount::MAX`].
    #[must_use]
    pub fn show_sum(self, sum: i128) -> String {
        if self != Self::Usd {
            return sum.to_string();
        }
        let (sign, nanos) = (if sum < 0 { "-" } else { "" }, sum.unsigned_abs());
        let whole = nanos / u128::from(NANOS_PER_USD);
        let rest = u64::try_from(nanos % u128::from(NANOS_PER_USD)).unwrap_or_default();
        let rest = self.show(Amount(rest)).to_string();
        format!("{sign}{whole}{}", rest.strip_prefix('0').unwrap_or_default())
    }
}

/// So many of a [`Unit`]: 0 to 9,223,372,036,854,775,807 (nano-dollars: about 9.2 billion dollars).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(u64);

impl Amount {
    /// None.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(1);
    /// The most there can be.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// `None` beyond [`Amount::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// As a plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As a signed number, which every amount fits.
    #[must_use]
    pub const fn get_signed(self) -> i64 {
        self.0.cast_signed()
    }

    /// Whether it is none.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum; `None` beyond [`Amount::MAX`].
    #[must_use]
    pub const fn plus(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Self::new(sum),
            None => None,
        }
    }

    /// The difference; none where `other` is more.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Money read from a decimal of US dollars with nine decimals at most.
    ///
    /// # Errors
    /// Where the text is none, or does not fit.
    pub fn from_usd(text: &str) -> Result<Self, AmountError> {
        decimal(text, 9).and_then(|nanos| Self::new(nanos).ok_or(AmountError::TooLarge))
    }

    /// Nano-dollars as micro-dollars, rounded up.
    #[must_use]
    pub const fn micros_up(self) -> i64 {
        self.0.div_ceil(1000).cast_signed()
    }

    /// Nano-dollars as micro-dollars, rounded down.
    #[must_use]
    pub const fn micros_down(self) -> i64 {
        (self.0 / 1000).cast_signed()
    }

    /// How much of `whole` this is, in percent: rounded up, but 100 only where it is all of it; at most 1,000,000.
    #[must_use]
    pub fn percent_of(self, whole: Self) -> i64 {
        const MOST: u128 = 1_000_000;
        let (part, whole) = (u128::from(self.0), u128::from(whole.0));
        if whole == 0 {
            return 100;
        }
        let percent = (part * 100).div_ceil(whole).min(MOST);
        let percent = if part < whole { percent.min(99) } else { percent };
        i64::try_from(percent).unwrap_or(i64::MAX)
    }
}

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not digits with a point at most.
    #[error("is not a decimal number such as 12.50")]
    Form,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// More decimals than are kept.
    #[error("has more decimals than are kept")]
    TooFine,
    /// Beyond what can be counted.
    #[error("is too large")]
    TooLarge,
}

/// An exact decimal of at most `places` decimals, in units of the last; no float is on the way.
///
/// # Errors
/// Where the text is none, or does not fit.
pub fn decimal(text: &str, places: usize) -> Result<u64, AmountError> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(positive) = text.strip_prefix('-') {
        return Err(decimal(positive, places).map_or_else(|error| error, |_| AmountError::Negative));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if !digits(whole) || !digits(fraction) || leading_zero {
        return Err(AmountError::Form);
    }
    let kept = fraction.trim_end_matches('0');
    if kept.len() > places {
        return Err(AmountError::TooFine);
    }
    format!("{whole}{kept:0<places$}").parse().map_err(|_| AmountError::TooLarge)
}

/// A decimal, perhaps with an exponent (`1.5e-7`), in units of the last of `places` decimals: rounded up, and whether it had
/// to be. No float is on the way.
///
/// # Errors
/// Returns an error if the text is not a decimal or does not fit.
pub fn decimal_rounded_up(text: &str, places: usize) -> Result<(u64, bool), AmountError> {
    /// Digits beyond which no amount fits, zeros in front of it left out.
    const MOST_DIGITS: usize = 20;
    /// The largest exponent that is accepted. Larger ones are out of range in either direction.
    const MOST_EXPONENT: i64 = 400;
    if let Some(positive) = text.strip_prefix('-') {
        return Err(decimal_rounded_up(positive, places).map_or_else(|error| error, |_| AmountError::Negative));
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (sign, magnitude) = match exponent.strip_prefix('-') {
        Some(magnitude) => (-1, magnitude),
        None => (1, exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if !is_number(whole) || !is_number(fraction) || !is_number(magnitude) || leading_zero {
        return Err(AmountError::Form);
    }
    let exponent = sign * magnitude.parse::<i64>().unwrap_or(MOST_EXPONENT).min(MOST_EXPONENT);
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let behind_the_point = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let shift = behind_the_point(places).saturating_add(exponent).saturating_sub(behind_the_point(fraction.len()));
    if digits.is_empty() {
        return Ok((0, false));
    }
    if shift >= 0 {
        let zeros = usize::try_from(shift).unwrap_or(usize::MAX);
        if digits.len().saturating_add(zeros) > MOST_DIGITS {
            return Err(AmountError::TooLarge);
        }
        let number = format!("{digits}{}", "0".repeat(zeros)).parse().map_err(|_| AmountError::TooLarge)?;
        return Ok((number, false));
    }
    let dropped = usize::try_from(shift.unsigned_abs()).unwrap_or(usize::MAX);
    let (kept, rest) = digits.split_at(digits.len().saturating_sub(dropped));
    let number: u64 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| AmountError::TooLarge)? };
    let rounds = rest.bytes().any(|byte| byte != b'0');
    let number = number.checked_add(u64::from(rounds)).ok_or(AmountError::TooLarge)?;
    Ok((number, rounds))
}

/// An amount as people and clients read it.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    amount: Amount,
    unit: Unit,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.amount.0;
        if self.unit != Unit::Usd {
            return write!(f, "{number}");
        }
        let (whole, mut fraction) = (number / NANOS_PER_USD, number % NANOS_PER_USD);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let mut places = 9;
        while fraction % 10 == 0 {
            fraction /= 10;
            places -= 1;
        }
        // Cents are what people expect of money.
        if places == 1 {
            (fraction, places) = (fraction * 10, 2);
        }
        write!(f, "{whole}.{fraction:0places$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact() {
        for (text, nanos, shown) in [
            ("0", 0, "0"),
            ("500", 500_000_000_000, "500"),
            ("12.4", 12_400_000_000, "12.40"),
            ("0.0031", 3_100_000, "0.0031"),
            ("0.000000001", 1, "0.000000001"),
            ("1.500000000000", 1_500_000_000, "1.50"),
        ] {
            let amount = Amount::from_usd(text).unwrap();
            assert_eq!(amount.get(), nanos, "{text}");
            assert_eq!(Unit::Usd.show(amount).to_string(), shown);
        }
        for (text, error) in [
            ("", AmountError::Form),
            (".5", AmountError::Form),
            ("5.", AmountError::Form),
            ("1e3", AmountError::Form),
            ("010", AmountError::Form),
            ("+1", AmountError::Form),
            ("-1", AmountError::Negative),
            ("-x", AmountError::Form),
            ("0.0000000001", AmountError::TooFine),
            ("9223372037", AmountError::TooLarge),
            ("99999999999999999999999", AmountError::TooLarge),
        ] {
            assert_eq!(Amount::from_usd(text), Err(error), "{text}");
        }
    }

    #[test]
    fn decimals_with_exponents_are_exact_or_rounded_up() {
        for (text, expected) in [
            ("0", Ok((0, false))),
            ("0.10", Ok((100_000, false))),
            ("12", Ok((12_000_000, false))),
            ("1e-1", Ok((100_000, false))),
            ("1E-6", Ok((1, false))),
            ("1.5e-7", Ok((1, true))),
            ("0.1234567", Ok((123_457, true))),
            ("0.1234560", Ok((123_456, false))),
            ("0.0000001", Ok((1, true))),
            ("2.5e+2", Ok((250_000_000, false))),
            ("0e999999999999999999999", Ok((0, false))),
            ("1e-999999999999999999999", Ok((1, true))),
            ("1e999999999999999999999", Err(AmountError::TooLarge)),
            ("99999999999999999999999", Err(AmountError::TooLarge)),
            ("-1e-3", Err(AmountError::Negative)),
            ("1e", Err(AmountError::Form)),
            ("e5", Err(AmountError::Form)),
            ("1e1.5", Err(AmountError::Form)),
            ("1e--5", Err(AmountError::Form)),
            ("01", Err(AmountError::Form)),
            (".5", Err(AmountError::Form)),
        ] {
            assert_eq!(decimal_rounded_up(text, 6), expected, "{text}");
        }
    }

    #[test]
    fn sums_go_beyond_amounts() {
        let most = i128::from(u64::MAX);
        assert_eq!(Unit::Usd.show_sum(0), "0");
        assert_eq!(Unit::Usd.show_sum(-1), "-0.000000001");
        assert_eq!(Unit::Usd.show_sum(12_400_000_000), "12.40");
        assert_eq!(Unit::Usd.show_sum(-500_000_000_000), "-500");
        assert_eq!(Unit::Usd.show_sum(most * 10), "184467440737.09551615");
        assert_eq!(Unit::Tokens.show_sum(-most), "-18446744073709551615");
    }

    #[test]
    fn a_hundred_percent_is_full() {
        let percent = |part, whole| Amount(part).percent_of(Amount(whole));
        assert_eq!(percent(0, 10), 0);
        assert_eq!(percent(1, 1_000_000), 1);
        assert_eq!(percent(999_999, 1_000_000), 99);
        assert_eq!(percent(10, 10), 100);
        assert_eq!(percent(15, 10), 150);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(u64::MAX / 2, 1), 1_000_000);
    }

    #[test]
    fn micro_dollars_never_favour_the_caller() {
        assert_eq!(Amount(1).micros_up(), 1);
        assert_eq!(Amount(1).micros_down(), 0);
        assert_eq!(Amount(2_000).micros_up(), 2);
    }
}
