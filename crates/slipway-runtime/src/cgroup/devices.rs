//! Which devices a container may use, for both versions of cgroups.

/// A device, or all of a kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    /// A character device; a block device otherwise.
    character: bool,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

// Bits of BPF_DEVCG_ACC_*, and types of BPF_DEVCG_DEV_*, from linux/bpf.h.
const MAKE: u32 = 1;
const ALL: u32 = 7;
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// Device nodes may be made, for archives to be unpacked, but only these can be opened: null, zero, full, random,
/// urandom, tty, console, ptmx and pseudo terminals.
pub(super) const ALLOWED: [Device; 11] = [
    Device { character: true, major: None, minor: None, access: MAKE },
    Device { character: false, major: None, minor: None, access: MAKE },
    opened(1, Some(3)),
    opened(1, Some(5)),
    opened(1, Some(7)),
    opened(1, Some(8)),
    opened(1, Some(9)),
    opened(5, Some(0)),
    opened(5, Some(1)),
    opened(5, Some(2)),
    opened(136, None),
];

const fn opened(major: u32, minor: Option<u32>) -> Device {
    Device { character: true, major: Some(major), minor, access: ALL }
}

impl Device {
    /// As cgroup v1 is told it.
    pub(super) fn line(&self) -> String {
        let part = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let access = if self.access == ALL { "rwm" } else { "m" };
        let kind = if self.character { 'c' } else { 'b' };
        format!("{kind} {}:{} {access}", part(self.major), part(self.minor))
    }
}

/// As cgroup v2 is told it: an eBPF program that answers 1 for what is allowed.
///
/// Its context is `struct bpf_cgroup_dev_ctx`: access in the upper and type in the lower half of the first word, then
/// major and minor.
pub(super) fn program(devices: &[Device]) -> Vec<u64> {
    // Registers: 1 context, 2 type, 3 access, 4 major, 5 minor, 6 scratch.
    let mut code = vec![
        load(2, 1, 0),
        operation(0xbc, 3, 2, 0, 0),
        operation(0x54, 2, 0, 0, 0xffff),
        operation(0x74, 3, 0, 0, 16),
        load(4, 1, 4),
        load(5, 1, 8),
    ];
    for device in devices {
        let kind = if device.character { CHARACTER } else { BLOCK };
        let mut checks = vec![(2, kind)];
        checks.extend(device.major.map(|major| (4, major)));
        checks.extend(device.minor.map(|minor| (5, minor)));
        // Each check jumps behind this device's last instruction: the checks after it, then five.
        for (at, (register, value)) in checks.iter().enumerate() {
            let skip = (checks.len() - at - 1 + 5) as u16;
            code.push(operation(0x56, *register, 0, skip, *value));
        }
        code.push(operation(0xbc, 6, 3, 0, 0));
        code.push(operation(0x54, 6, 0, 0, !device.access));
        code.push(operation(0x56, 6, 0, 2, 0));
        code.push(operation(0xb7, 0, 0, 0, 1));
        code.push(operation(0x95, 0, 0, 0, 0));
    }
    code.push(operation(0xb7, 0, 0, 0, 0));
    code.push(operation(0x95, 0, 0, 0, 0));
    code
}

/// A 32-bit load into a register.
fn load(to: u8, from: u8, offset: u16) -> u64 {
    operation(0x61, to, from, offset, 0)
}

/// One instruction: opcode, destination and source register, offset, immediate.
fn operation(opcode: u8, to: u8, from: u8, offset: u16, immediate: u32) -> u64 {
    u64::from(opcode)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset) << 16
        | u64::from(immediate) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_version_1() {
        let lines: Vec<_> = ALLOWED.iter().map(Device::line).collect();
        assert_eq!(lines[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(lines[10], "c 136:* rwm");
    }

    /// Runs the few instructions that the program uses.
    fn run(code: &[u64], context: [u32; 3]) -> u32 {
        let mut registers = [0_u32; 11];
        let mut at = 0;
        loop {
            let step = code[at];
            at += 1;
            let (to, from) = ((step >> 8 & 15) as usize, (step >> 12 & 15) as usize);
            let (offset, immediate) = ((step >> 16) as u16, (step >> 32) as u32);
            match step as u8 {
                0x61 => registers[to] = context[usize::from(offset) / 4],
                0xbc => registers[to] = registers[from],
                0x54 => registers[to] &= immediate,
                0x74 => registers[to] >>= immediate,
                0x56 if registers[to] != immediate => at += usize::from(offset),
                0x56 => {}
                0xb7 => registers[to] = immediate,
                0x95 => return registers[0],
                other => panic!("no instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_means_the_list() {
        let code = program(&ALLOWED);
        for kind in [BLOCK, CHARACTER] {
            for major in [0, 1, 5, 8, 136, 195] {
                for minor in 0..12 {
                    for access in 1..=ALL {
                        let expected = ALLOWED.iter().any(|device| {
                            device.character == (kind == CHARACTER)
                                && device.major.is_none_or(|known| known == major)
                                && device.minor.is_none_or(|known| known == minor)
                                && access & !device.access == 0
                        });
                        let answer = run(&code, [access << 16 | kind, major, minor]);
                        assert_eq!(answer == 1, expected, "{kind} {major}:{minor} {access}");
                    }
                }
            }
        }
    }
}
