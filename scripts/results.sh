#!/bin/sh
# The measurements that docs/results.md shows, step by step or all of them: scripts/results.sh [STEP...]
# They take an hour and a half on two cores. Nothing here is part of the tests.
set -e
cd "$(dirname "$0")/.."

pmkvq=${PMKVQ:-target/release/pmkvq}
model=model/pmkvq-tiny.gguf
out=docs/results
threads=${THREADS:-2}
tmp=${TMPDIR:-/tmp}/pmkvq-results
mkdir -p "$out" "$tmp"
# threads that wait must not keep the others from working
export OMP_WAIT_POLICY=passive

eval_questions() {
    name=$1 documents=$2
    shift 2
    $pmkvq eval -m $model --questions model/questions.jsonl --documents "$documents" --ctx 16384 --step 32 -t "$threads" \
        -o "$tmp/$name" "$@" > "$out/$name.txt"
    # a page of many caches is some megabytes: those stay where they were made
    if [ "$(wc -c < "$tmp/$name/report.html")" -lt 600000 ]; then
        cp "$tmp/$name/report.html" "$out/$name.html"
    fi
}

# transforms and sensitivities of the shipped model
step_model() {
    $pmkvq profile -m $model -f model/calibration.txt --make-transforms model/transforms.json -o model/sensitivity.json \
        --length 8192 --stretches 4 --parallel 4 -t "$threads" > "$out/sensitivity.txt"
}

# without transforms and with the paper's ranges, to compare with gradients (docs/results/sensitivity-gradient.json)
step_plain() {
    $pmkvq profile -m $model -f model/calibration.txt --range shift -o "$out/sensitivity-plain.json" \
        --length 4096 --stretches 4 --parallel 4 -t "$threads" > "$out/sensitivity-plain.txt"
    python3 scripts/rank.py docs/results/sensitivity-gradient.json "$out/sensitivity-plain.json" > "$out/rank.txt"
}

# against llama.cpp's own caches, at budgets with everything counted
step_quality() {
    eval_questions quality 3 --cache f16,q4_0 --sensitivity plan=model/sensitivity.json --transforms model/transforms.json \
        --bits 4.5,3.3,3.2,2.71
}

# all answers of all documents, without llama.cpp's slow quantized attention
step_recall() {
    eval_questions recall 8 --cache f16 --sensitivity plan=model/sensitivity.json --transforms model/transforms.json \
        --bits 3.3,3.2,2.71
}

# transforms and range rules, static so that every width is seen for itself: ablation MODEL NAME
ablation() {
    caches=f16
    for kind in none:none:none k,v:none:none none:none:k,v k,v:none:k,v k,v:balance:none k,v:balance:k,v none:smooth:none k,v:smooth:k,v; do
        center=${kind%%:*} hadamard=${kind##*:}
        scales=${kind#*:}
        scales=${scales%%:*}
        file=$tmp/$2-$(echo "$kind" | tr -d , | tr : -).json
        $pmkvq profile -m "$1" -f model/calibration.txt --make-transforms "$file" --center "$center" --key-scales "$scales" \
            --hadamard "$hadamard" --length 4096 --stretches 4 --parallel 4 -t "$threads"
        for range in shift fit; do
            caches=$caches,static:2@transforms=$file@range=$range
        done
        caches=$caches,static:4@transforms=$file
    done
    $pmkvq eval -m "$1" --questions model/questions.jsonl --documents 1 --ctx 16384 --step 32 -t "$threads" --cache "$caches" \
        -o "$tmp/$2" > "$out/$2.txt"
}

step_ablation() {
    ablation $model ablation
}

# the same model with outlier channels in K: function and answers are the same, at 16 bits
step_outliers() {
    ${PYTHON:-python3} model/train/outliers.py --gguf-py .cache/pristine/gguf-py --out "$tmp/outliers.gguf"
    ablation "$tmp/outliers.gguf" outliers
}

# progressive against static
step_progressive() {
    eval_questions progressive 2 --preset progressive --transforms model/transforms.json
}

# planned against uniform, rule block against rule layer
step_allocation() {
    eval_questions allocation 2 --preset allocation --sensitivity plan=model/sensitivity.json --transforms model/transforms.json \
        --bits 4.5,4,3.6,3.3,3,2.75
}

# does error accumulate
step_cumulative() {
    eval_questions cumulative 1 --preset cumulative --sensitivity plan=model/sensitivity.json --transforms model/transforms.json
}

# sensitivities with stretched positions, on short and on long text
step_interpolation() {
    files=
    for s in 1 2 4 8 16 32; do
        $pmkvq profile -m $model -f model/calibration.txt --transforms model/transforms.json -o "$tmp/s$s.json" --rope-stretch $s \
            --length 2048 --stretches 2 --parallel 2 -t "$threads" > "$out/sensitivity-s$s.txt"
        files="$files --sensitivity s=$s=$tmp/s$s.json"
    done
    head -c 4096 model/demo.txt > "$tmp/short.txt"
    $pmkvq eval -m $model -f "$tmp/short.txt" -f model/demo.txt --preset interpolation $files --transforms model/transforms.json \
        --bits 4,3.6 --step 32 -t "$threads" -o "$tmp/interpolation" > "$out/interpolation.txt"
}

# a plan made on one kind of text, used on another
step_transfer() {
    head -c 65536 model/heldout.txt > "$tmp/prose.txt"
    tail -c 16384 model/heldout.txt > "$tmp/prose-eval.txt"
    $pmkvq profile -m $model -f "$tmp/prose.txt" --transforms model/transforms.json -o "$tmp/prose.json" \
        --length 4096 --stretches 4 --parallel 4 -t "$threads" > "$out/sensitivity-prose.txt"
    $pmkvq eval -m $model -f "$tmp/prose-eval.txt" -f model/demo.txt --preset transfer --sensitivity prose="$tmp/prose.json" \
        --sensitivity recall=model/sensitivity.json --transforms model/transforms.json --bits 3.3,3 --step 32 -t "$threads" \
        -o "$tmp/transfer" > "$out/transfer.txt"
}

for step in ${@:-model plain quality recall ablation outliers progressive allocation cumulative interpolation transfer}; do
    echo "== $step"
    step_"$step"
done
