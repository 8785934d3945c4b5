//! The system call filter of every container, as a BPF program.
//!
//! libseccomp knows the numbers; the program is laid out here, since building it with libseccomp takes 8 ms of every
//! start. Numbers are grouped in runs and tested in ascending order. A linear search costs nothing where it matters: since
//! Linux 5.11 the kernel finds out once which numbers are always allowed and does not run the program for them.

mod profile;

use std::collections::BTreeMap;

use libseccomp::{ScmpArch, ScmpSyscall};

use crate::sys::Instruction;
use profile::When;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

// Instructions of classic BPF, from linux/filter.h, and offsets of struct seccomp_data.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
#[cfg(target_endian = "little")]
const ARGUMENT_0: u32 = 16;
#[cfg(target_endian = "big")]
const ARGUMENT_0: u32 = 20;

/// What happens to one system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Allow,
    AllowWhen(&'static [When]),
    Fail(u32),
}

/// Architectures whose programs this kernel runs, with their `AUDIT_ARCH_*` numbers; the native one first.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[(ScmpArch, u32)] = &[(ScmpArch::X8664, 0xc000_003e), (ScmpArch::X86, 0x4000_0003)];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[(ScmpArch, u32)] = &[(ScmpArch::Aarch64, 0xc000_00b7), (ScmpArch::Arm, 0x4000_0028)];
#[cfg(target_arch = "riscv64")]
const ARCHITECTURES: &[(ScmpArch, u32)] = &[(ScmpArch::Riscv64, 0xc000_00f3)];

/// The filter.
pub(crate) fn filter() -> Vec<Instruction> {
    let sections: Vec<_> = ARCHITECTURES.iter().map(|(arch, audit)| (*audit, rules(*arch))).collect();
    assemble(&sections)
}

/// Rules of one architecture by number. Names that libseccomp does not know there are left out.
fn rules(arch: ScmpArch) -> BTreeMap<u32, Rule> {
    let number = |name: &str| {
        let known = ScmpSyscall::from_name_by_arch(name, arch).ok().map(ScmpSyscall::as_raw_syscall);
        // Negative numbers are libseccomp's own, for calls that this architecture lacks.
        known.and_then(|number| u32::try_from(number).ok())
    };
    let mut rules = BTreeMap::new();
    for name in profile::ALLOWED.split_whitespace() {
        if let Some(number) = number(name) {
            rules.insert(number, Rule::Allow);
        }
    }
    for (_, number) in profile::NEWER {
        rules.insert(number, Rule::Allow);
    }
    for (name, conditions) in profile::CONDITIONAL {
        if let Some(number) = number(name) {
            rules.insert(number, Rule::AllowWhen(conditions));
        }
    }
    for name in profile::ABSENT {
        if let Some(number) = number(name) {
            rules.insert(number, Rule::Fail(ENOSYS));
        }
    }
    rules
}

fn assemble(sections: &[(u32, BTreeMap<u32, Rule>)]) -> Vec<Instruction> {
    let mut program = vec![load(ARCHITECTURE)];
    for (audit, rules) in sections {
        let section = section(rules);
        // Past this section when it is another architecture; a section is longer than a conditional jump reaches.
        program.push(instruction(JUMP_EQUAL, *audit, 1, 0));
        program.push(instruction(JUMP, section.len() as u32, 0, 0));
        program.extend(section);
    }
    program.push(result(KILL_PROCESS));
    program
}

/// Every path through a section returns. Numbers ascend, so each test knows that all before were exceeded.
fn section(rules: &BTreeMap<u32, Rule>) -> Vec<Instruction> {
    let mut program = vec![load(NUMBER)];
    for (first, last, rule) in runs(rules) {
        let mut body = match rule {
            Rule::Allow => vec![result(ALLOW)],
            Rule::Fail(errno) => vec![result(ERRNO | errno)],
            Rule::AllowWhen(conditions) => {
                let mut body: Vec<_> = conditions.iter().flat_map(|when| condition(*when)).collect();
                body.push(result(ERRNO | EPERM));
                body
            }
        };
        // Between runs: known, and not allowed.
        body.push(result(ERRNO | EPERM));
        let length = u8::try_from(body.len()).expect("a rule's body is a few dozen instructions");
        program.push(instruction(JUMP_GREATER, last, length + 1, 0));
        program.push(instruction(JUMP_GREATER_EQUAL, first, 0, length - 1));
        program.extend(body);
    }
    // Also x32's numbers, which start at 0x40000000.
    program.push(instruction(JUMP_GREATER, profile::LAST_KNOWN, 1, 0));
    program.push(result(ERRNO | EPERM));
    program.push(result(ERRNO | ENOSYS));
    program
}

/// Neighbouring numbers with one fate, in ascending order.
fn runs(rules: &BTreeMap<u32, Rule>) -> Vec<(u32, u32, Rule)> {
    let mut runs: Vec<(u32, u32, Rule)> = Vec::new();
    for (number, rule) in rules {
        match runs.last_mut() {
            Some((_, last, Rule::Allow)) if *rule == Rule::Allow && *last + 1 == *number => *last = *number,
            _ => runs.push((*number, *number, *rule)),
        }
    }
    runs
}

/// Allows when the condition holds; falls through otherwise.
fn condition(when: When) -> Vec<Instruction> {
    match when {
        When::Between(low, high) => vec![
            load(ARGUMENT_0),
            instruction(JUMP_GREATER, high, 2, 0),
            instruction(JUMP_GREATER_EQUAL, low, 0, 1),
            result(ALLOW),
        ],
        When::Clear(bits) => vec![
            load(ARGUMENT_0),
            instruction(AND, bits, 0, 0),
            instruction(JUMP_EQUAL, 0, 0, 1),
            result(ALLOW),
        ],
    }
}

fn load(offset: u32) -> Instruction {
    instruction(LOAD, offset, 0, 0)
}

fn result(value: u32) -> Instruction {
    instruction(RETURN, value, 0, 0)
}

fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], arch: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let mut branch = |taken: bool| at += usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                LOAD => {
                    accumulator = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => arch,
                        ARGUMENT_0 => argument,
                        other => panic!("no field at {other}"),
                    }
                }
                AND => accumulator &= step.k,
                JUMP_EQUAL => branch(accumulator == step.k),
                JUMP_GREATER => branch(accumulator > step.k),
                JUMP_GREATER_EQUAL => branch(accumulator >= step.k),
                JUMP => at += step.k as usize,
                RETURN => return step.k,
                other => panic!("no instruction {other:#x}"),
            }
        }
    }

    /// What the rules mean, read without a program.
    fn meaning(rules: &BTreeMap<u32, Rule>, number: u32, argument: u32) -> u32 {
        match rules.get(&number) {
            Some(Rule::Allow) => ALLOW,
            Some(Rule::Fail(errno)) => ERRNO | errno,
            Some(Rule::AllowWhen(conditions)) => {
                let holds = conditions.iter().any(|when| match when {
                    When::Between(low, high) => (low..=high).contains(&&argument),
                    When::Clear(bits) => argument & bits == 0,
                });
                if holds { ALLOW } else { ERRNO | EPERM }
            }
            None if number > profile::LAST_KNOWN => ERRNO | ENOSYS,
            None => ERRNO | EPERM,
        }
    }

    fn native(name: &str) -> u32 {
        ScmpSyscall::from_name(name).unwrap().as_raw_syscall().try_into().unwrap()
    }

    #[test]
    fn well_known_calls() {
        let program = filter();
        let arch = ARCHITECTURES[0].1;
        for name in ["read", "execve", "openat", "futex", "exit_group", "mmap", "ptrace", "chroot"] {
            assert_eq!(run(&program, arch, native(name), 0), ALLOW, "{name}");
        }
        for name in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "reboot",
            "init_module",
            "io_uring_setup",
            "pivot_root",
        ] {
            assert_eq!(run(&program, arch, native(name), 0), ERRNO | EPERM, "{name}");
        }
        assert_eq!(run(&program, arch, native("clone3"), 0), ERRNO | ENOSYS);
        assert_eq!(run(&program, arch, 452, 0), ALLOW, "fchmodat2");
        assert_eq!(run(&program, arch, 467, 0), ERRNO | ENOSYS, "open_tree_attr, newer than the table");
        let clone = native("clone");
        assert_eq!(run(&program, arch, clone, 0x0120_0011), ALLOW, "a fork");
        assert_eq!(run(&program, arch, clone, 0x1000_0000), ERRNO | EPERM, "CLONE_NEWUSER");
        let socket = native("socket");
        assert_eq!(run(&program, arch, socket, 2), ALLOW, "AF_INET");
        assert_eq!(run(&program, arch, socket, 40), ERRNO | EPERM, "AF_VSOCK");
        assert_eq!(run(&program, arch, socket, 38), ERRNO | EPERM, "AF_ALG");
        assert_eq!(run(&program, 0x1234, native("read"), 0), KILL_PROCESS, "a foreign architecture");
        assert!(program.len() < 4096, "the kernel's limit; {}", program.len());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn other_programs_of_this_machine() {
        let program = filter();
        assert_eq!(run(&program, ARCHITECTURES[0].1, 0x4000_0000, 0), ERRNO | ENOSYS, "x32");
        assert_eq!(run(&program, ARCHITECTURES[1].1, 3, 0), ALLOW, "i386 read");
        assert_eq!(run(&program, ARCHITECTURES[1].1, 21, 0), ERRNO | EPERM, "i386 mount");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn the_program_means_the_table(
            section in 0..ARCHITECTURES.len(),
            number in prop_oneof![0_u32..520, any::<u32>()],
            argument in prop_oneof![0_u32..64, any::<u32>(), (0_u32..32).prop_map(|bit| 1 << bit)],
        ) {
            let (arch, audit) = ARCHITECTURES[section];
            prop_assert_eq!(run(&filter(), audit, number, argument), meaning(&rules(arch), number, argument));
        }
    }
}
