#!/bin/sh
# The kernels' tests for aarch64, run under emulation: scripts/aarch64_tests.sh [ARGUMENTS OF THE TEST PROGRAM...]
# For Debian 12 on x86_64, as root, with cargo at hand. QEMU_CPU=cortex-a57 runs them on a CPU without dot products.
#
# The compiler is Debian's: only it takes the standard library for aarch64 that Debian has. It may be newer, so
# what it accepts, ours may not: look up in our own compiler's docs since when an intrinsic is stable.
set -e
cd "$(dirname "$0")/.."

cache=$PWD/.cache/aarch64
suite=trixie # with its backports: the first Debian where rustc is new enough for `rust-version`
target=aarch64-unknown-linux-gnu
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1; }

# Linker, C library and emulator are the machine's own Debian's.
if ! ls /usr/bin/aarch64-linux-gnu-gcc /usr/bin/qemu-aarch64 /usr/aarch64-linux-gnu/lib/libc.so > /dev/null 2>&1; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
fi

# The compiler and the libraries it runs with are unpacked, not installed: they are of another Debian. apt checks all it
# downloads against the archive's key. Backports keep one version, so none can be pinned; the cache stays with its own.
if [ ! -e "$cache/complete" ]; then
    [ -n "$(mirror)" ] || apt-get update -q
    mirror=$(mirror)
    [ -n "$mirror" ] || { echo "aarch64_tests: apt knows no Debian mirror" >&2; exit 1; }
    rm -rf "$cache"
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial" "$cache/root"
    for s in $suite $suite-backports; do
        echo "deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $s main"
    done > "$cache/apt/sources.list"
    : > "$cache/apt/status" # as if nothing were installed: all libraries are wanted
    cat > "$cache/apt/apt.conf" << END
Dir::State "$cache/apt";
Dir::State::status "$cache/apt/status";
Dir::Cache "$cache/apt";
Dir::Etc::sourcelist "$cache/apt/sources.list";
Dir::Etc::sourceparts "-";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
APT::Default-Release "$suite-backports";
Acquire::Languages "none";
END
    (
        export APT_CONFIG="$cache/apt/apt.conf"
        apt-get update -q
        # the standard library brings the compiler's libraries; rustc itself would bring a C compiler
        apt-get install -q -y --download-only --no-install-recommends libstd-rust-dev
        cd "$cache/apt/archives"
        apt-get download -q rustc libstd-rust-dev:arm64
    )
    # the archive's architectures are built one after the other, and for days one may be a version ahead
    versions=$(cd "$cache/apt/archives" && ls rustc_*.deb libstd-rust-dev_*_arm64.deb | cut -d_ -f2 | sed 's/[+~-].*//' | sort -u)
    if [ "$(echo "$versions" | wc -l)" -ne 1 ]; then
        echo "aarch64_tests: Debian has rustc for amd64 and its library for arm64 in different versions at present ($(echo $versions)): try again in some days" >&2
        exit 1
    fi
    for deb in "$cache"/apt/archives/*.deb; do
        dpkg-deb -x "$deb" "$cache/root"
    done
    # with the C library it was built for, whatever the machine's is
    cat > "$cache/rustc" << END
#!/bin/sh
exec "$cache/root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$cache/root/usr/lib/x86_64-linux-gnu" \\
    "$cache/root/usr/bin/rustc" --sysroot "$cache/root/usr" "\$@"
END
    chmod +x "$cache/rustc"
    "$cache/rustc" --version
    rm -r "$cache/apt"
    touch "$cache/complete"
fi

export RUSTC="$cache/rustc"
export CARGO_TARGET_DIR="$cache/target"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu ${QEMU_CPU:-max} -L /usr/aarch64-linux-gnu"
exec cargo test --locked --no-default-features --target $target --test kernels -- "$@"
