# Sourced by .ci/run: what the machine must have, and the servers the suites talk to.
# Everything is installed only when missing and started only when it does not answer.

DB_USER=jit_approval_ci # our own role: the servers' own administrators are left as they are
DB_PASSWORD=jit_approval_ci
HOST=127.0.0.1

apt_need() { # apt_need PACKAGE...: install those that are missing
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    echo "installing: ${missing[*]}"
    ( # one at a time: legs run beside each other, and apt waits for nobody
        flock 9
        [ -e "$WORK/apt.updated" ] || apt-get update -qq 9>&-
        touch "$WORK/apt.updated"
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 9>&-
    ) 9>"$WORK/apt.lock"
}

wait_until() { # wait_until WHAT COMMAND...: up to a minute
    local what=$1 tries
    shift
    for tries in $(seq 120); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.5
    done
    echo "$what does not answer" >&2
    return 1
}

postgres_answers() { pg_isready -q -h $HOST -p 5432; }

start_postgres() {
    apt_need postgresql
    if ! postgres_answers; then
        local version name
        read -r version name _ < <(pg_lsclusters -h)
        # A cluster that is already starting is not an error: the wait below decides.
        pg_ctlcluster --skip-systemctl-redirect "$version" "$name" start || true
    fi
    wait_until PostgreSQL postgres_answers
    (cd / && runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 -d postgres) <<SQL
DO \$\$ BEGIN
    CREATE ROLE $DB_USER LOGIN CREATEDB PASSWORD '$DB_PASSWORD';
EXCEPTION WHEN duplicate_object THEN NULL;
END \$\$;
SQL
}

mariadb_answers() { mariadb-admin --user=root ping --connect-timeout=2 && port_open 3306; }

port_open() { (exec 3<>"/dev/tcp/$HOST/$1"); }

start_mariadb() {
    apt_need mariadb-server
    if ! mariadb_answers >/dev/null 2>&1; then
        install -d -o mysql -g mysql /run/mysqld
        start-stop-daemon --start --oknodo --background --exec /usr/sbin/mariadbd -- --user=mysql
    fi
    wait_until MariaDB mariadb_answers
    mariadb --user=root <<SQL
CREATE USER IF NOT EXISTS '$DB_USER'@'$HOST' IDENTIFIED BY '$DB_PASSWORD';
CREATE USER IF NOT EXISTS '$DB_USER'@'localhost' IDENTIFIED BY '$DB_PASSWORD';
GRANT ALL ON \`%jit\_approval%\`.* TO '$DB_USER'@'$HOST';
GRANT ALL ON \`%jit\_approval%\`.* TO '$DB_USER'@'localhost';
SQL
}

redis_answers() { redis-cli -h $HOST ping | grep -qx PONG; }

start_redis() {
    apt_need redis-server
    redis_answers 2>/dev/null ||
        redis-server --daemonize yes --bind $HOST --port 6379 --save "" --appendonly no --dir /tmp >/dev/null
    wait_until Redis redis_answers
}
