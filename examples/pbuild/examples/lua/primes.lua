-- The primes below 100, and who counted them.
local composite, primes = {}, {}
for n = 2, 99 do
  if not composite[n] then
    primes[#primes + 1] = n
    for multiple = n * n, 99, n do composite[multiple] = true end
  end
end
print(_VERSION .. ": " .. table.concat(primes, " "))
