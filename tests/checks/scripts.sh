#!/usr/bin/env bash
# tests/checks/scripts.sh: every shell script passes shellcheck. A script is a file whose first line says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
scripts=()
while IFS= read -r -d '' file; do
    case "$(head -c 64 "$file" | head -n 1 | tr -d '\0')" in
    '#!'*sh) scripts+=("$file") ;;
    esac
done < <(find . \( -path ./build -o -path ./runs -o -path ./.git \) -prune -o -type f -print0)
shellcheck --external-sources "${scripts[@]}"
echo "${#scripts[@]} scripts, no finding"
