# Shared by the scripts in this folder. Sourced, not run.

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$1" >&2
    [ -n "${2:-}" ] && printf '  hint: %s\n' "$2" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "this needs root: containers need namespaces, mounts and cgroups" "run it with sudo"
    [ "$(uname -s)" = Linux ] || fail "this needs Linux" "use a virtual machine"
}

# Installs Debian packages that are missing; elsewhere says what to install.
debian_packages() {
    local missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null ||
        fail "these packages are missing and there is no apt-get: ${missing[*]}" "install what your system calls them"
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The trust bundle of this machine, where it has one: build steps fetch packages through it.
ca_bundle() {
    for file in "${SLIPWAY_CA_CERTIFICATES:-}" "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt; do
        [ -n "$file" ] && [ -r "$file" ] && { readlink -f "$file"; return; }
    done
}

need_cargo() {
    command -v cargo >/dev/null || fail "cargo is missing" "install Rust: https://rustup.rs"
}
