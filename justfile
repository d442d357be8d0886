# Every verb that a developer needs; `just` alone lists them.
default:
    @just --list

# Compile and lint.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Every test; root is needed for those with real containers.
test:
    cargo test --workspace

# The demo: a real cluster on this machine.
demo:
    cargo run --release -- demo

# Measure: prints the table of docs/benchmarks.md.
bench:
    cargo build --release -p cli -p e2e --features e2e/bench --bin skerry --bin bench
    target/release/bench

# Random stories on real peers, for so long (90s, 10m, 2h).
stories for="10m":
    cargo build --release -p cli -p e2e --bins
    target/release/stories --for {{for}}

# Write the schemas and help pages again.
schemas:
    cargo run -p cli -- schema --all schemas
    cargo run -p cli -- help-pages docs/reference

# API documentation.
doc:
    cargo doc --workspace --no-deps --document-private-items

# All that CI does.
ci:
    bash .ci/run
