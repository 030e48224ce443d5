#!/bin/sh
# Makes, in a folder, a certificate authority and a certificate of a SuperLink
# for localhost: certificates.sh FOLDER. For trying out only.
set -eu
mkdir -p "$1"
cd "$1"
openssl req -x509 -newkey rsa:3072 -nodes -days 30 -subj '/CN=test CA' \
  -keyout ca.key -out ca.crt
openssl req -newkey rsa:3072 -nodes -subj '/CN=localhost' \
  -keyout server.key -out server.csr
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' > server.ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
  -days 30 -extfile server.ext -out server.pem
