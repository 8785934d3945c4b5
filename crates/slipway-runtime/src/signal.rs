//! Signals by name and number.

/// Names of Linux's standard signals on x86, ARM and RISC-V, by number from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// glibc's first and last real-time signals.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A signal's number from `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3` or `RTMAX-1`.
pub fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(digits) => digits.parse::<i32>().ok().filter(|n| (0..=RTMAX - RTMIN).contains(n)),
        None => rest.is_empty().then_some(0),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest, '+').map(|n| RTMIN + n);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(rest, '-').map(|n| RTMAX - n);
    }
    let name = match name {
        "IOT" => "ABRT",
        "POLL" => "IO",
        "CLD" => "CHLD",
        other => other,
    };
    NAMES.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok())
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn every_spelling() {
        let good =
            [("TERM", 15), ("sigterm", 15), ("SIGKILL", 9), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+3", 37)];
        for (text, number) in good {
            assert_eq!(parse_signal(text), Some(number), "{text}");
        }
        assert_eq!(parse_signal("RTMAX-1"), Some(63));
        for bad in ["", "0", "65", "-9", "NOPE", "RTMIN+31", "RTMIN-1", "SIG"] {
            assert_eq!(parse_signal(bad), None, "{bad}");
        }
    }
}
