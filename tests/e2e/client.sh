#!/bin/sh
# client.sh - the real client against the real daemon: files, pipes, folders, jobs, refusals, a key, a crash in between.
B=${B:-build}
case $B in /*) ;; *) B=$PWD/$B ;; esac
JPG=$PWD/tests/demo/launch.jpg
T=$(mktemp -d) || exit 1
cd "$T" || exit 1
unset DERAIN_KEY
export XDG_CONFIG_HOME="$T" DERAIN_MODULE_DIR="${DERAIN_MODULE_DIR:-$B}"
bad=0 pid= port=0 model=m.safetensors

start() { # start DATA [OPTIONS]: a daemon on $port (0 = a free one); sets pid, port and DERAIN_URL
    dir=$1; shift
    : >log
    "$B/deraind" serve --listen 127.0.0.1:$port --data "$T/$dir" --model "$T/$model" --backend cpu \
        --free-min-bytes 0 --free-min-percent 0 "$@" 2>>log &
    pid=$!
    for _ in $(seq 300); do
        DERAIN_URL=$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' log)
        [ -n "$DERAIN_URL" ] && { port=${DERAIN_URL##*:}; export DERAIN_URL; return 0; }
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
    echo "# the daemon did not start"; sed 's/^/# /' log; echo "not ok start"; exit 1
}
halt() { [ -n "$pid" ] && { kill -"${1:-TERM}" $pid; wait $pid; } 2>/dev/null; rc=$?; pid=; return $rc; }
trap 'halt KILL; rm -rf "$T"' EXIT

derain() { "$B/derain" "$@"; }
is() { # is NAME CODE COMMAND...: the command ends with this code; its output is in out and err
    name=$1 code=$2; shift 2
    "$@" >out 2>err </dev/null; rc=$?
    if [ $rc -eq "$code" ]; then echo "ok $name"
    else bad=1; echo "# exit $rc, expected $code"; sed 's/^/# /' out err | head -12; echo "not ok $name"; fi
}
check() { # check NAME COMMAND...: without touching out and err
    name=$1; shift
    if "$@" >/dev/null 2>&1; then echo "ok $name"
    else bad=1; sed 's/^/# /' out err | head -12; echo "not ok $name"; fi
}
none() { ! grep -q "$@"; }

base64 -d >a.png <<'PNG'
iVBORw0KGgoAAAANSUhEUgAAAEAAAAAwCAIAAAAuKetIAAAYb0lEQVR42hWXjVbaita1vbDvPefs3/63lCLiI8YYY4wxxhBDjCHGGGOMERGRUkopZbPZHF4Gg+vIZX1v1xWsscZccz5z7f8V8v8p8K8C/y7wnwK/FPi1wG8Ffi/wR4E/C7wo8LLAqwKvC7wp5G8LvCvwvsCHAoUCHwsUC3wqUCqwXqBcYKNApcBmAQpsFagW2C4gFNgpIBbYLeRSgb0CcoH9AkqBgwJqgcMCWoGjAnqB4wJGgZMCZiGvFbAKnBawC9QLOAXOCrgFzgt4BRoF1v6nyL+K/LvIf4r8UuTXIr8V+b2Y/1HkzyIvirws8qrI6yJvirwt8q7I+yIfihSKfCxSLPKpmJeKrBcpF9koUimyWYQiW0WqRbaLCEV2iohFdotIRfaKyEX2iyhFDoqoRQ6LuVbkqIhe5LiIUeSkiFmkVsQqclrELlIv4hQ5K+IW8/MiXpFGEb/I2r9K/LvEf0r8UuLXEr+V+L3EHyX+LPGixMsSr0q8LvGmxNtS/q7E+xIfShRKfCxRLPGpRKnEeolyiY0SlRKbJSixVcqrJbZLCCV2SogldktIJfZKyCX2SyglDkqoJQ5LaCWOSugljksYJU5KmCVqpdwqcVrCLlEv4ZQ4K+GWOC/hlWiU8EtclFj7d5n/lPmlzK9lfivze5k/yvxZ5kWZl2VelXld5k2Zt2XelXlf5kOZQpmPZYplPpUplfP1MuUyG2UqZTbLUGarTLXMdhmhzE4ZscxuGanMXjmXy+yXUcoclFHLHJbRyhyV0csclzHKnJQxy9TKWGVOy9hl6mWcMmdl3DLn5dwr0yjjl7koE5RZ+0+FXyr8WuG3Cr9X+KPCn5X8RYWXFV5VeF3hTYW3Fd5VeF/hQ4VChY8VihU+VShVWK9QrrBRoVJhswIVtipUK/l2BaHCTgWxwm4FqcJeBbnCfgWlwkEFtcJhBa3CUSXXKxxXMCqcVDAr1CpYFU4r2BXqFZwKZxXcCucVvAqNCn6FiwpBhcsKa7/Ar/Ab/A5/wJ/wAl7CK3gNb+AtvIP35B9+viUff8qbTz9lwvrPc7Pxc202+TlbUIVtEGAHRNgFCfZAJt8HBQ5AhUPQ4Ah0OAYDTsCEGlhwSm5DHRw4AxfOwYMG+HABAVxCCGu/Vvmtyu9V/qjyZ5UX1fxllVdVXld5U+VtlXdV3lf5UKVQ5WOVYpVPVUpV1quUq/lGlUqVzerPxbeqVKtsVxGq7FQRq+xWkarsVZGr7FdRqhxUUascVtGqHFXRq/lxFaPKSRWzSq2KVeW0il2lXsWpclbFrXJexavSqOZ+lYsqQZXLKmGVqyprvwn8LvCHwJ8CLwReCrwSeC3wRuCtwDuB9wIfhLwg8FGgKPBJoCSwLlAW2BCoCGwKPw++JVAV2BYQhHxHQBTYFZAE9gRkgX0BReBAQBU4FNAEjgR0gWMBQ+BEwBSoCVgCpwK2kNcFHIEzAVfgXMATaAj4AhcCgcClQChwJRAJrP0u8ofInyIvRF6KvBJ5LfJG5K3IO5H3Ih9ECiIfRYoin0RKIusiZZENMa+IbIo/hbIlUhXZFhFEdkREkV0RSWRPRBbZF1HE/EBEFTkU0USORHSRYxFD5ETEFKmJWCKnIrZIXcQRORNxRc5FPJGGiC/mFyKByKVIKHIlEolci6z9IfGnxAuJlxKvpPy1xBuJtxLvJN5LfJAoSHyUKEp8kihJrEuUJTYkKhKb0k+Bb0lUJbYlBIkdKRcldiUkiT0JWWJfQpE4kFAlDiU0iSMJXeJYwpDyEwlToiZhSZxK2BJ1CUfiTMKVOJfwJBoSvsSFRCBxKRFKXElEEtcSsZSv/SnzQualzCuZ1zJvZN7KvJN5L/NBpiDzUc6LMp9kSjLrMmWZDZmKzKb88zG3ZKoy2zKCzI6MKLMrI8nsycgy+zKKzIGcqzKHMprMkYwucyxjyJzImDI1GUvmVMaWqcs4cn4m48qcy3gyDRlf5kImkLmUCWWuZCKZa5lY5kZm7YXCS4VXCq+V/I3CW4V3Cu8VPigUFD4qFBU+KZQU1hXKChsKFYVNJf8/Q9lSqCpsKwgKOwqiwq6CpLCnICvsKygKBwqqwqGCpnCkoCscKxgKJ0puKtQULIVTBVuhruAonCm4CucKnkJDwVe4UAiU/FIhVLhSiBSuFWKFG4VEYe2lyiuV1ypvVN6qvFN5r/JBpaDyUaWo5p9USirrKmWVDZWKyqb60wi3VKoq2yqCyo6KqLKr5pLKnoqssq+iqByoqCqHKprKkYqucqxiqJyomCo1FUvlVMVWqas4Kmdq7qqcq3gqDRVf5UIlULlUCVWuVCKVa5VY5UYlUfNblbVXGq813mi81Xin8V7jg0ZB46NGUeOTRkljXaOssaFR0dj8P/fW8i2Nqsa2hqCxoyFq7GpIGnsassa+hqJxoKFqHGq5pnGkoWscaxgaJxqmRk3D0jjVsDXqGo7GmYarca7haTQ0fI0LjUDjUstDjSuNSONaI9a40Ug0bjVSjbXXOm903ur5O533Oh90CjofdYo6n3RKOus6ZZ0NnYrOpv4zeLZ0qjrbOoLOjo6os6sj6fmejqyzr6PoHOioOoc6ms6Rjq5zrGPonOiYOjU9t3ROdWyduo6jc6bj6pzreDoNHV/nQifQudQJda50Ip1rnVjnRifRudXzVOdOZ+2NwVuDdwbvDT4YFAw+GhQNPhmUjHzdoGywYVAx2DR+BuaWQdVg20Aw2DEQDXYNJIM9A9lg30AxODBQDQ4NNCM/MtANjg0MgxMD06BmYBmcGtgGdQPH4MzANTg3cs+gYeAbXBgEBpcGocGVQWRwbRAb3BgkBrcGqcGdQWaw9tbknZm/N/lgUjD5aFI0+WRSMlk3KZtsmFRMNs2fQb9lUjXzbRPBZMdENNk1kUz2TGSTfRPF5MBENTk00UyOTHSTYxPD5MTENKmZWGZ+amKb1E0ckzMT1+TcxDNpmPgmFyaByaVJaHJl5pHJtUlscmOSmNyapCZ3JpnJvcnaO4v3Fh8sChYfLYoWnyxKFutWXrbYsKhYbFo/AWXLomqxbSFY7FiIFrsWksWehWzl+xaKxYGFanFooVkcWegWxxaGxYmFaVGzsCxOLWyLuoVjcWbhWpxbeFbesPAtLiwCi0uL0OLKIrK4togtbiwSi1uL1OLOyjOLe4umxdp7mw82BZuPNkWbTzYlm3Wbss2GTcVm8/+oymbLpmqzbeeCzY6NaLNrI9ns2cg2+zaKzYGNanNoo9kc2eh2fmxj2JzYmDY1G8vm1Ma2qds4Nmc2rs25jWfTsPFtLmwCm0ub0ObKJrLza5vY5sYmsbm1SW3ubDKbe5umzYPN2gcnLzh8dCg6fHIoOaw7lB02HCoOm85PINxyqDpsOwgOOw6iw66D5LDnIDvsO7nicOCgOhw6aA5HDrrDsYPhcOJgOtQcLIdTB9vJ6w6Ow5mD63Du4Dk0HHyHC4fA4dIhdLhyiByuHWKHG4fE4dYhdbhzyJz83qHp8ODQclgruHx0Kbp8cim5rLuUXTbcvOKy6f4E2S2Xqsu2i+Cy4yK67LpILnsussu+i+Jy4KK6HLpoLkcuusuxmxsuJy6mS83Fcjl1sV3qLo7LmYvrcu7iuTRcfDe/cAlcLl1ClyuXyOXaJXa5cUlcbl1SlzuXzOXepeny4NJyeXRZ++hR9PjkUfJY9yh7bHhUPDa9nwC+5VH12PYQPHa8XPTY9ZA89jxkj30PxePAQ/U49NA8jjx0j2MPw+PEw/SoeVgepx62R93LHY8zD9fj3MPzaHj4HhcegcelR+hx5RF5XHvEXn7jkXjceqQedx6Zx71H0+PBo+Xx6NH2WCv6fPIp+az7lH02fCp+vun/LA5bPlWfbR/BZ8dH9Nn1kXz2fGSffR/F58DPVZ9DH83nyEf3OfYxfE58TJ+aj+Vz6mP71H0cnzMf1+fcx/Np+Pg+F34e+Fz6hD5XPpHPtU/sc+OT+Nz6pD53PpnPvU/Tzx98Wj6PPm2fJ5+1TwGlgPWAcsBGQCVgM/hZeLYCqgHbAULAToAY5LsBUsBegBywH6AEHASoAYcBWsBRgB5wHGAEnAS5GVALsAJOA+yAeoATcBbgBpwHeAGNAD/gIiAIuAwIA64CooDrgDjgJsiTgNuANOAuIAu4D2gGPAS0Ah4D2gFPAZ2AtVLIekg5ZCOkErIZ/ixqWyHVkO0QIWQnRAzZDZFC9kLkkP0QJeQgRA3zwxAt5ChEDzkOMUJOQsyQWogVchpih9RDnJCzMHdDzkO8kEaIH3IREoRchoQhVyFRyHVIHHITkoTchqQhdyFZyH1IM+QhzFshjyHtkKeQTshzyNp6RDliI6ISsRlBlG9FVCO2I4SInQgxYjdCitiLkCP2I5SIgwg14jBCiziK0COOI4yIkwgzymsRVsRphB1Rj3AiziLciPMIL6IR4UdcRAQRl1EeRlxFRBHXEXHETUQScRuRRtxFZBH3Ec2Ih4hWxGNEO+IpohPxHNGNWCvHbMRUYjZjiNmKqcZsxwgxOzFizG6MFOd7MXLMfowScxCjxhzGaDFHMXrMcYwRcxJjxtRirJjTGDumHuPEnMW4cX4e48U0YvyYi5gg5jImjLmKiWKuY+KYm5gk5jbO05i7mCzmPqYZ8xDTinmMacc8xXRinmO6MZ9j1jYSKgmbCSRsJXk1YTtBSNhJEBN2E6SEvQQ5YT9BSThIUBMOE7QkP0rQE44TjISTBDOhlmAlnCbYCfUEJ+EswU04T/ASGgl+wkVCkHCZECb5VUKUcJ0QJ9wkJAm3CWnCXUKWcJ/QTHhIaCU8Jnk74Smhk/Cc0E34nNBLWKukbKaQspVSTdlOEVJ2UsSU3RQpZS/N5ZT9FCXlIEVNOUzRUo5S9JTjFCPlJMVMqaVYaX6aYqfUU5yUsxQ35TzFS2mk+CkXKUHKZUqYcpUSpVynxCk3KUnKbUqa5ncpWcp9SjPlIaWV8pjSTnlK6aQ8p3RTPqf0Ur6k+dpmBhlbGdWM7QwhYydDzNjNkDL2MuSM/Qwl4yBDzTjM0DKOslzPOM4wMk4yzIxahpVxmmFn1DOcjLMMN+M8w8vyRoafcZERZFxmhBlXGVHGdUaccZORZNxmpBl3GVnGfUYz4yGjlfGY0c7yp4xOxnNGN+NzRi/jS0Y/Y40mW02qTbabudBkp4nYZLeJ1GSvidxkv4nS5KCJ2uSwidbkqIne5LiJ0eSkidmk1sRqctrM7Sb1Jk6TsyZuk/MmXpNGE7/JRZOgyWWTsMlVk6iZXzeJm9w0SZrcNkmb3DXJmtw3aTZ5aNJq8tik3eSpSafJc5Nuk89Nek2+NOk3869N1rZaVFtstxBa7LQQW+y2kFrstZBb7LdypcVBC7XFYQutxVELvcVxC6PFSQuzRa2F1eK0hd2i3sJpcdbCbXHewmvRaOV+i4sWQYvLFmGLqxZRi+sWcYubFkmL2xZpi7sWWSu/b9Fs8dCi1eKxRbvFU4tOi+cW3RafW/RafGnRb/G1xaDFWrXNdhuhne+0EdvstpHa7LWR2+y3UdoctFHbHLbR2hy10dsct3OjzUkbs02tjdXmtI3dpt7GaXPWxm1z3sZr02jjt7loE7S5bBO2uWoTtblu53GbmzZJm9s2aZu7Nlmb+zbNNg9tWm0e27TbPLXptPPnNt02n9v02nxp02/ztc2gzbc2a9sdhA47HcQOux2kDnsd5A77HZROftBB7XDYQetw1EHvcNzB6HDSwexQ62B1OO1gd6h3cqfDWQe3w3kHr0Ojg9/hokPQ4bJD2OGqQ9ThukPc4aZD0uG2Q9rhrkPW4b6TNzs8dGh1eOzQ7vDUodPhuUO3w+cOvQ5fOvQ7fO0w6OTfOgw7rAlddrqIXXa7SF32ushd9rsoXQ66qF0Ou2hdjrroXY67GN38pIvZpdbF6nLaxe5S7+J0Oevidjnv4nVpdPG7XHTzoMtll7DLVZeoy3WXuMtNl6TLbZe0y12XrMt9l2aXhy6tLo9d2l2eunS6PHfzbpfPXXpdvnTpd/naZdDlW5dhl+9d1nZ6iL18t4fUY6+H3GO/h9LjoIfa47CH1uOoh97juIfR46SH2aPWw+px2sPuUe/h9PKzHm6P8x5ej0YPv8dFj6DHZY+wx1WPqMd1j7jHTS9Petz2SHvc9ch63Pdo9njo0erx2KPd46lHp8dzj26Pzz16Pb706Pf42mPQ41svH/b43mPUY03ss9tH6rPXR+6z30fpc9BH7eeHfbQ+R330Psd9jD4nfcw+tT5Wn9M+dp96H6fPWR+3z3kfr0+jj9/nok/Qzy/7hH2u+kR9rvvEfW76JH1u+6R97vpkfe77NPs89PNWn8c+7T5PfTp9nvt0+3zu0+vzpU+/z9c+gz7f+gz7fO8z6vOjz9ruIJcG7A2QB+wPUAYcDFAHHA7QBhwN0AccDzAGnAwwB3ltgDXgdIA9oD7AGXA2wB1wPsAb0BjgD7gYEAy4HBAOuBoQDbgeEA+4GZAM8tsB6YC7AdmA+wHNAQ8DWgMeB7QHPA3oDHge0B3weZD3BnwZ0B/wdcBgwLcBwwHfB4wG/BgwHrAmDdkbIg/ZH6IMORiiDjkc5tqQoyH6kOMhxpCTIeaQ2hBryOkQe0h9iDPkbIg7zM+HeEMaQ/whF0OCIZdDwiFXQ6Ih10PiITdDkiG3Q9Ihd0OyIfdDmkMehrSG+eOQ9pCnIZ0hz0O6Qz4P6Q35MqQ/5OuQwZBvQ4ZDvg/z0ZAfQ8ZD/hqytjdCHrE/QhlxMEIdcThCG3E0Qh9xPMIYcTLCHFEb5daI0xH2iPoIZ8TZCHfE+QhvRGOEP+JiRDDickQ4yq9GRCOuR8QjbkYkI25HpCPuRmQj7kc0RzyMaI14HNEe8TSiM+J5RHfE5xG9Uf5lRH/E1xGDEd9GDEd8HzEa8WPEeMRfIyYj1uQx+2OUMQdj1DGHY7QxR2P0McdjjDEnY8wxtTHWmNMx9pj6GGfM2Rh3zPk498Y0xvhjLsYEYy7HhGOuxkRjrsfEY27GJGNux6Tj/G5MNuZ+THPMw5jWmMcx7TFPYzpjnsd0x3we0xvzZUx/zNcxgzHfxgzHfB8zGuc/xozH/DVmMubvMWv7E5QJBxPUCYcTtAlHk1yfcDzBmHAywZxQm2BNOJ1gT6hPcCacTXAnnE/wJjQm+BMuJgQTLieEE64meTThekI84WZCMuF2QjrhbkI24X5Cc8LDhNaExwntSf40oTPheUJ3wucJvQlfJvQnfJ0wmPBtwnDC9wmjCT8mjCf8NWEy4e8J0wlrypSDKeqUwynalKMp+pTjKcaUkynmlNoUa8rpNLen1Kc4U86muFPOp3hTGlP8KRdTgimXU8IpV1OiKddT4ik3U5Ipt1PSKXfTPJtyP6U55WFKa8rjlPaUpymdKc9TulM+T+lN+TKlP82/ThlM+TZlOOX7lNGUH1PGU/6aMpny95TplH+mrB3MUGccztBmHM3QZ/nxDGPGyQxzRm2GNeN0hj2jPsOZcTbDnXE+w5vRmOX+jIsZwYzLGeGMqxnRjOsZ8YybGcmM2xnpjLsZ2Yz7Gc0ZDzNaMx5ntGc8zfLOjOcZ3RmfZ/RmfJnRn/F1xmDGtxnDGd9njGb8mDGe5X/NmMz4e8Z0xj8zZjPW1DmHc7Q5R3P0OcdzjDknc8w5tTnWnNM59jyvz3HmnM1x55zP8eY05vhzLuYEcy7nhHOu5kRzrud5POdmTjLndk46525ONud+TnPOw5zWnMc57TlPczpznud053ye05vzZU5/ztd5Ppjzbc5wzvc5ozk/5ozn/DVnMufvOdM5/8yZzfnvnLXDBdqCowX6guMFxoKTBeaC2gJrwekCe0F9gbPgbIG74HyBt6CxwF/kFwuCBZcLwgVXC6IF1wviBTcLkgW3C9IFdwuyBfeLvLngYUFrweOC9oKnBZ0Fzwu6Cz4v6C34sqC/4OuCwYJvC4YLvi8YLfixYLzgr0U+WfD3gumCfxbMFvx3wXzBmrbkaIm+5HiJscxPlphLakusJadL7CX1Jc6SsyXukvMl3pLGEn/JxZJgyeWScMnVkmjJ9ZJ4md8sSZbcLkmX3C3JltwvaS55WNJa8rikveRpSWfJ8zLvLvm8pLfky5L+kq9LBku+LRku+b5ktOTHkvGSv5ZMlvy9ZLrknyWzJf9dMl/yv8t87WiFvuJ4hbHiZIW5orbCWnG6wl5RX+Gs8rMV7orzFd6Kxgp/xcWKYMXlinDF1YpoxfWKeMXNimTF7Yp0xd2KbMX9iuYqf1jRWvG4or3iaUVnxfOK7orPK3orvqzor/i6YrDi2yofrvi+YrTix4rxir9WTFb8vWK64p8VsxX/XTFf8b8rFiv+P+Jb18hV6ZxPAAAAAElFTkSuQmCC
PNG
"$B/deraind" model init --ngf 16 --blocks 6 --seed 3 m.safetensors >/dev/null || exit 1
"$B/deraind" run --backend cpu --model m.safetensors a.png want.png >/dev/null 2>&1 || exit 1
"$B/deraind" run --backend cpu --model m.safetensors "$JPG" wantjpg.png >/dev/null 2>&1 || exit 1

is no_server_is_code_3 3 derain jobs --url http://127.0.0.1:1
start data
is doctor_finds_all_well 0 derain doctor
check doctor_made_the_round_trip grep -q '^ok *round trip' out
is models_lists_the_weights 0 derain models
check models_says_ready grep -q 'derain .*default.*ready' out

# files and pipes: the daemon gives the very pixels of deraind run
is put_a_file 0 derain put a.png
check put_gave_the_offline_pixels cmp a.derained.png want.png
is put_never_overwrites 2 derain put a.png
is put_force_overwrites 0 derain put a.png --force
is put_jpeg_out 0 derain put a.png -o b.jpg
check put_wrote_a_jpeg sh -c 'head -c 3 b.jpg | od -An -tx1 | grep -q "ff d8 ff"'
sh -c '"$0" put - <a.png >piped.png' "$B/derain"
check put_in_a_pipe cmp piped.png want.png
is put_a_photograph 0 derain put "$JPG" -o photo.png
check put_photograph_pixels cmp photo.png wantjpg.png

# folders
mkdir dir && for i in 1 2 3 4 5; do cp a.png dir/p$i.png; done
echo "no picture at all" >dir/p3.png
head -c 200 a.png >dir/p4.png
is folder_with_bad_files 1 derain put dir -o res
check folder_did_the_rest cmp res/p5.derained.png want.png
check folder_names_the_failures grep -q 'p3.png.*unsupported_format' err
check folder_names_the_cut_one grep -q 'p4.png.*image_corrupt' err
check folder_left_no_half_files test ! -e res/p3.derained.png -a ! -e res/p4.derained.png
rm dir/p3.png dir/p4.png
is folder_again_skips 0 derain put dir -o res --json
check folder_skipped_all grep -q '"skipped": 3' out

# refusals
echo text >t.png
is text_is_refused 4 derain put t.png
check refusal_has_words grep -q 'unsupported_format' err
: >empty.png
is empty_is_refused 4 derain put empty.png
is unknown_job 4 derain show job_01ARZ3NDEKTSV4RRFFQ69G5FAV
is nonsense_job 4 derain show ../../etc/passwd
is unknown_model_is_refused 4 derain put a.png --force --model nobody

# jobs
is async_prints_an_id 0 derain put "$JPG" --async
id=$(cat out)
is watch_ends_well 0 derain watch "$id"
is get_the_result 0 derain get "$id" -o got.png
check get_gave_the_pixels cmp got.png wantjpg.png
is show_json 0 derain show "$id" --json
check show_says_succeeded grep -q '"state": "succeeded"' out
is jobs_lists_it 0 derain jobs --state succeeded --limit 5
check jobs_has_the_id grep -q "$id" out
halt
check sigterm_ends_with_0 test $? -eq 0

# a larger network, so that jobs wait: handed in as a folder, the last one is cancelled
"$B/deraind" model init --ngf 64 --blocks 9 --seed 3 large.safetensors >/dev/null || exit 1
"$B/deraind" run --backend cpu --model large.safetensors "$JPG" wantlarge.png >/dev/null 2>&1 || exit 1
port=0 model=large.safetensors
start data3
mkdir many && for i in 1 2 3 4 5 6; do cp "$JPG" many/p$i.jpg; done
is folder_async 0 derain put many --async -j 1
ids=$(awk '{ print $1 }' out)
last=${ids##*
}
is get_before_it_is_done 4 derain get "$last" -o early.png
is cancel_a_waiting_job 0 derain cancel "$last" --reason test
is watch_of_a_cancelled_job 1 derain watch "$last"
check watch_says_cancelled grep -q '^state *cancelled' out
is cancel_again_changes_nothing 0 derain cancel "$last"
kill -STOP $pid
for _ in $(seq 100); do # until each of its threads stands still
    grep -q '^State:.*[RSD] (' /proc/$pid/task/*/status 2>/dev/null || break
    sleep 0.02
done
is watch_times_out 5 derain watch "$last" --timeout 1s
kill -CONT $pid

# the daemon dies; what was taken is done by the next one, and the client that watches waits for it
set -- $ids
derain watch "$5" --timeout 5m >watched 2>err &
watcher=$!
sleep 0.5
halt KILL
sleep 0.3
start data3
wait $watcher; rc=$?
cp watched out
check watch_survives_a_crash test $rc -eq 0
good=0
for id in "$1" "$2" "$3" "$4" "$5"; do
    derain get "$id" --wait --timeout 5m -q -f -o x.png && cmp x.png wantlarge.png && good=$((good + 1))
done >out 2>err
check every_job_has_its_picture_after_the_crash test $good -eq 5

# ^C takes the job along
for i in 1 2 3; do derain put "$JPG" --async >/dev/null; done
"$B/derain" put "$JPG" -o never.png >out 2>err &
put=$!
for _ in $(seq 200); do # until the daemon has it
    [ "$(derain jobs --json | grep -c '"id": "job_')" -eq 10 ] && break
    sleep 0.05
done
kill -INT $put
wait $put; rc=$?
check interrupt_is_130 test $rc -eq 130
check interrupt_wrote_nothing test ! -e never.png
for _ in $(seq 100); do
    derain jobs --state cancelled --json >cancelled
    [ "$(grep -c '"id": "job_' cancelled)" -eq 2 ] && break
    sleep 0.1
done
check interrupt_cancelled_its_job test "$(grep -c '"id": "job_' cancelled)" -eq 2
halt KILL

# a key
echo "0123456789abcdef-secret" >token
chmod 600 token
port=0 model=m.safetensors
start data2 --token-file "$T/token"
is without_key_refused 4 derain jobs
check says_where_keys_come_from grep -q 'key-file' err
is with_key_file 0 derain jobs --key-file token
is with_key_in_environment 0 env DERAIN_KEY=0123456789abcdef-secret "$B/derain" put a.png -f
is wrong_key_refused 4 env DERAIN_KEY=0123456789abcdef-secreT "$B/derain" put a.png -f
halt
[ $bad -eq 0 ]
