//! Small languages inside arguments: durations, ports, signals, stage names.

use std::time::Duration;

/// Why a text is no port of EXPOSE.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a port: expected a number or a range, with an optional `/tcp`, `/udp` or `/sctp`")]
pub struct InvalidPort(pub String);

/// Reads an expanded word of EXPOSE (`80`, `80/udp`, `8000-8002`) as the image configuration lists ports: one
/// `number/protocol` for each.
pub fn parse_ports(text: &str) -> Result<Vec<String>, InvalidPort> {
    let fail = || InvalidPort(text.to_owned());
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |digits: &str| {
        let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if valid { digits.parse::<u16>().ok().filter(|&port| port > 0) } else { None }
    };
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last && matches!(protocol.as_str(), "tcp" | "udp" | "sctp") => {
            Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
        }
        _ => Err(fail()),
    }
}

/// Reads a duration as Go writes it: `30s`, `1m30s`, `1.5h`, `500ms`, `0`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..unit].parse().ok()?;
        rest = &rest[unit..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * factor;
        rest = &rest[end..];
    }
    // The image configuration keeps nanoseconds in 64 bits.
    if seconds > i64::MAX as f64 / 1e9 {
        return None;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// Whether Linux knows a signal: by number, or by name with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 35] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "UNUSED",
    ];
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |rest: &str, sign: char| {
        rest.is_empty()
            || rest
                .strip_prefix(sign)
                .and_then(|n| n.parse::<u8>().ok())
                .is_some_and(|n| (1..=30).contains(&n))
    };
    NAMES.contains(&name)
        || name.strip_prefix("RTMIN").is_some_and(|rest| realtime(rest, '+'))
        || name.strip_prefix("RTMAX").is_some_and(|rest| realtime(rest, '-'))
}

/// Whether a lower-case text may name a stage: `[a-z][a-z0-9-_.]*`.
pub(super) fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'))
}
