#!/bin/sh
# A small authority for client certificates (access.mode = mtls), on a machine that is not the registry's.
#
#   client-ca.sh init DIR                a new authority: DIR/clients.pem and DIR/clients.crl are for nginx
#   client-ca.sh issue DIR NAME [DAYS]   DIR/issued/NAME.pem: key and certificate of one person or machine, in one file
#   client-ca.sh revoke DIR NAME         NAME may read no more: give nginx the new DIR/clients.crl, and reload it
#   client-ca.sh list DIR                DIR/clients.crl anew: it is good for 30 days, and nginx refuses everybody after that
#
# The authority's key is DIR/private/clients.key. Nothing is overwritten but clients.crl. Needs OpenSSL.

set -eu
umask 077

say() { echo "client-ca: $*" >&2; }
die() { say "error: $*"; exit 2; }
usage() { sed -n '4,7p' "$0" | cut -c3- >&2; exit 2; }

[ $# -ge 2 ] || usage
what=$1 dir=$2 name=${3-} days=${4-90}

run_ca() { (cd "$dir" && openssl ca -batch -config ca.cnf "$@") 2>"$dir/openssl.log" || { cat "$dir/openssl.log" >&2; die "$what"; }; }
new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }
new_list() { run_ca -gencrl -out clients.crl; }

case $what in
init)
    [ ! -e "$dir/ca.cnf" ] || die "\"$dir\" is an authority already"
    mkdir -p "$dir/private" "$dir/issued" "$dir/by-number"
    : >"$dir/index.txt"
    openssl rand -hex 16 >"$dir/serial"
    cat >"$dir/ca.cnf" <<'CONFIG'
[ca]
default_ca = clients
[clients]
dir = .
database = index.txt
serial = serial
rand_serial = yes
new_certs_dir = by-number
certificate = clients.pem
private_key = private/clients.key
default_md = sha256
default_crl_days = 30
policy = name
unique_subject = no
x509_extensions = of_a_client
[name]
commonName = supplied
[of_a_client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
[req]
distinguished_name = subject
[subject]
[of_the_authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
CONFIG
    new_key "$dir/private/clients.key"
    openssl req -x509 -new -config "$dir/ca.cnf" -extensions of_the_authority -days 3650 -sha256 \
        -subj "/CN=client certificates of $(uname -n)" -key "$dir/private/clients.key" -out "$dir/clients.pem"
    new_list
    say "for nginx: $dir/clients.pem, $dir/clients.crl"
    ;;
issue | revoke)
    case $name in "" | .* | *[!A-Za-z0-9._-]*) die "NAME is of letters, digits, dots and dashes" ;; esac
    made=issued/$name.pem
    if [ "$what" = revoke ]; then
        [ -e "$dir/$made" ] || die "\"$dir/$made\" was not issued"
        run_ca -revoke "$made"
        new_list
        rm "$dir/$made" # by-number/ keeps the certificate
        say "$name is revoked: give nginx $dir/clients.crl, and reload it"
    else
        [ ! -e "$dir/$made" ] || die "\"$dir/$made\" is there already: revoke it, or move it away"
        new_key "$dir/$made.new"
        openssl req -new -config "$dir/ca.cnf" -subj "/CN=$name" -key "$dir/$made.new" -out "$dir/request.pem"
        run_ca -notext -days "$days" -in request.pem -out certificate.pem
        cat "$dir/certificate.pem" >>"$dir/$made.new"
        rm "$dir/request.pem" "$dir/certificate.pem"
        mv "$dir/$made.new" "$dir/$made"
        say "$dir/$made is good for $days days; it holds a key: hand it to $name alone"
        echo "$dir/$made"
    fi
    ;;
list) new_list ;;
*) usage ;;
esac
