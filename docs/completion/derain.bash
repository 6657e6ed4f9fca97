# bash completion for derain, printed by `derain completion`
_derain() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W 'put jobs show watch get cancel train logs pause resume publish datasets compare models use rollback doctor completion --help --version' -- "$cur")); return
    fi
    case $prev in
    --format) COMPREPLY=($(compgen -W 'png jpeg' -- "$cur")); return ;;
    --depth) COMPREPLY=($(compgen -W 'auto 8 16' -- "$cur")); return ;;
    --metadata) COMPREPLY=($(compgen -W 'keep strip' -- "$cur")); return ;;
    --state) COMPREPLY=($(compgen -W 'queued running validating paused evaluating gated succeeded failed cancelled expired' -- "$cur")); return ;;
    --preset) COMPREPLY=($(compgen -W 'released full product' -- "$cur")); return ;;
    -o|--output|--key-file) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    case $cmd:$cur in
    put:-*) COMPREPLY=($(compgen -W ' --output --async --force --format --depth --metadata --model --parallel --dry-run --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    jobs:-*) COMPREPLY=($(compgen -W ' --state --type --label --model --limit --all --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    show:-*) COMPREPLY=($(compgen -W ' --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    watch:-*) COMPREPLY=($(compgen -W ' --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    get:-*) COMPREPLY=($(compgen -W ' --output --force --wait --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    cancel:-*) COMPREPLY=($(compgen -W ' --reason --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    train:-*) COMPREPLY=($(compgen -W ' --rainy --clean --paired --dataset --set-aside --name --parent --preset --steps --time --crop --batch --seed --eval-every --threads --set --follow --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    logs:-*) COMPREPLY=($(compgen -W ' --follow --all --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    pause:-*) COMPREPLY=($(compgen -W ' --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    resume:-*) COMPREPLY=($(compgen -W ' --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    publish:-*) COMPREPLY=($(compgen -W ' --reason --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    datasets:-*) COMPREPLY=($(compgen -W ' --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    compare:-*) COMPREPLY=($(compgen -W ' --versions --pairs --dataset --output --force --name --async --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    models:-*) COMPREPLY=($(compgen -W ' --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    use:-*) COMPREPLY=($(compgen -W ' --force --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    rollback:-*) COMPREPLY=($(compgen -W ' --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    doctor:-*) COMPREPLY=($(compgen -W ' --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    completion:-*) COMPREPLY=($(compgen -W ' --url --key-file --timeout --json --quiet --help' -- "$cur")) ;;
    put:*|compare:*) COMPREPLY=($(compgen -f -- "$cur")) ;;
    show:*|watch:*|get:*|cancel:*|logs:*|pause:*|resume:*|publish:*)
        COMPREPLY=($(compgen -W "$(derain jobs --timeout 2s --quiet 2>/dev/null |
            awk '/^job_/ { print $1 }')" -- "$cur")) ;;
    esac
}
complete -o filenames -F _derain derain
